"""What the classical controls share: the space of knobs, what was measured in it, and how a point becomes an edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import knobs
from harness.errors import ConfigError
from harness.knobs import Knob, Scalar
from harness.records import Edit, Experiment, Proposal, Status, View

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_DIGITS = 4  # of a proposed number: more would be noise in a diff


@dataclass(frozen=True)
class Point:
    """A measured point of the space. `bpb` is None where the run failed."""

    values: Mapping[str, Scalar]
    bpb: float | None


def space(view: View) -> dict[str, Knob]:
    """The knobs of the stock script. Raises ConfigError when it has none."""
    found = knobs.parse(view.stock_source)
    if not found:
        raise ConfigError("train.py has no knobs to search: give its constants a 'search:' comment")
    return found


def stock_values(space: Mapping[str, Knob]) -> dict[str, Scalar]:
    return {name: knob.value for name, knob in space.items()}


def incumbent_values(view: View, space: Mapping[str, Knob]) -> dict[str, Scalar]:
    """The knobs of the best script so far."""
    found = knobs.parse(view.incumbent_source)
    return {name: found[name].value for name in space}


def points(view: View, space: Mapping[str, Knob]) -> list[Point]:
    """The stock script, then each experiment, read back from the source that ran: what counts is what was tried."""
    stock = Point(stock_values(space), view.baseline_bpb)
    return [stock, *(_point(experiment, space) for experiment in view.history)]


def proposal(view: View, space: Mapping[str, Knob], values: Mapping[str, Any]) -> Proposal:
    """The stock script with `values` in place of its knobs."""
    changed = {name: value for name, value in values.items() if value != space[name].value}
    text = ", ".join(f"{name} {space[name].value!r} -> {value!r}" for name, value in changed.items())
    return Proposal(hypothesis=text or "stock settings", edit=Edit(source=knobs.apply(view.stock_source, changed)))


def rounded(knob: Knob, value: Any) -> Scalar:
    """`value` as it is written into the script, within the knob's range."""
    if knob.kind in ("int", "choice"):
        return value if knob.kind == "choice" else int(value)
    assert knob.low is not None and knob.high is not None
    return min(max(float(f"{value:.{_DIGITS}g}"), float(knob.low)), float(knob.high))


def distributions(space: Mapping[str, Knob]) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms."""
    return {name: _distribution(knob) for name, knob in space.items()}


def derived_seed(search_seed: int, index: int) -> int:
    """A sampler's seed for experiment `index`: the same after a resume, independent between experiments."""
    from numpy.random import SeedSequence

    return int(SeedSequence([search_seed, index]).generate_state(1)[0])


def _point(experiment: Experiment, space: Mapping[str, Knob]) -> Point:
    values = stock_values(space)
    if experiment.source is not None:
        tried = knobs.parse(experiment.source)
        values |= {name: knob.value for name, knob in tried.items() if name in space}
    return Point(values, experiment.val_bpb if experiment.status is Status.OK else None)


def _distribution(knob: Knob) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if knob.kind == "choice":
        return CategoricalDistribution(knob.choices)
    assert knob.low is not None and knob.high is not None
    if knob.kind == "int":
        return IntDistribution(int(knob.low), int(knob.high), step=knob.step)
    return FloatDistribution(knob.low, knob.high, log=knob.kind == "log")
