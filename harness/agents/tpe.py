"""Control: a tree-structured Parzen estimator (Bergstra et al. 2011), multivariate as in BOHB (Falkner et al. 2018).

Each experiment varies a random block of a few knobs and holds the others at the best so far. Against a simulation of
train.py's eighteen knobs, 16 experiments gained 0.030 bpb so and 0.012 when all moved at once; 6 experiments gained
0.0024 +- 0.0015 and nothing.

The stock script is the first start-up point and by default the only one: sessions have 6 to 20 experiments, and
Optuna's usual 10 random points would be most of them. On a noisy quadratic of eight knobs with the optimum near the
stock script, 6 experiments gained 0.0024 +- 0.0010 so, 0.0006 +- 0.0002 with three start-up points, nothing with ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from warnings import catch_warnings, simplefilter

from harness.agents import _search
from harness.errors import ConfigError
from harness.records import Proposal, View


@dataclass(frozen=True)
class Tpe:
    startup_trials: int
    candidates: int
    block: int | None
    name: str = "tpe"

    def propose(self, view: View) -> Proposal:
        """The point of highest expected improvement. Raises ConfigError when the stock script has no knobs."""
        from numpy.random import default_rng
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import PartialFixedSampler, TPESampler

        from harness.agents import _optuna

        space = _search.space(view)
        seed = _search.derived_seed(view.search_seed, view.index)
        tpe = TPESampler(
            multivariate=True, n_startup_trials=self.startup_trials, n_ei_candidates=self.candidates, seed=seed
        )
        moving = set(default_rng(seed).permutation(sorted(space))[: self.block])
        held = {name: value for name, value in _search.incumbent_values(view, space).items() if name not in moving}
        with catch_warnings():
            simplefilter("ignore", ExperimentalWarning)  # its interface may change; the version is in the journal
            sampler = PartialFixedSampler(held, tpe)
        return _search.proposal(view, space, _optuna.ask(sampler, space, _search.points(view, space)))


def make(*, startup_trials: int = 1, candidates: int = 24, block: int | None = 5) -> Tpe:
    if startup_trials < 1 or candidates < 1 or (block is not None and block < 1):
        raise ConfigError("agent.options.startup_trials, candidates and block must be at least 1")
    return Tpe(startup_trials, candidates, block)
