"""Control: every knob drawn uniformly from its range (in the logarithm where the range says log)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.agents import _search
from harness.records import Proposal, View


@dataclass(frozen=True)
class Random:
    name: str = "random"

    def propose(self, view: View) -> Proposal:
        """A fresh point. Raises ConfigError when the stock script has no knobs."""
        from optuna.samplers import RandomSampler

        from harness.agents import _optuna

        space = _search.space(view)
        sampler = RandomSampler(seed=_search.derived_seed(view.search_seed, view.index))
        return _search.proposal(view, space, _optuna.ask(sampler, space, []))


def make() -> Random:
    return Random()
