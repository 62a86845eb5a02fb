"""One question to an Optuna sampler about a list of measured points. Imports optuna, so import this when proposing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from harness.agents import _search
from harness.agents._search import Point
from harness.knobs import Knob, Scalar


def ask(sampler: BaseSampler, space: Mapping[str, Knob], points: Sequence[Point]) -> dict[str, Scalar]:
    """The values that `sampler` proposes after `points`, from a fresh study that minimises bpb.

    A failed run is told as pruned: TPE then counts it among the worst, whereas it would forget a failed trial and
    propose its neighbour again.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = _search.distributions(space)
    study = optuna.create_study(sampler=sampler, direction="minimize")
    for point in points:
        state = TrialState.PRUNED if point.bpb is None else TrialState.COMPLETE
        params = dict(point.values)
        study.add_trial(create_trial(params=params, distributions=distributions, value=point.bpb, state=state))
    params = study.ask(distributions).params
    return {name: _search.rounded(knob, params[name]) for name, knob in space.items()}
