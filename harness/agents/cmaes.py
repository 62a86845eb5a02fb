"""Control: CMA-ES with margin (Hamano et al. 2022), which keeps integers from freezing on one value.

Every knob is mapped to [0, 1], in the logarithm where its range says log. A choice is the integer index of its options
in the order written, so neighbours should be alike; with two options the order does not matter. The search starts at
the stock knobs, and the stock script with the baseline's bpb is the first member of the first generation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.agents import _search
from harness.agents._search import Point
from harness.errors import ConfigError, HarnessError
from harness.knobs import Knob, Scalar
from harness.records import Proposal, View

_GENERATIONS = 3  # below that a session would end before the covariance is adapted at all
_SMALLEST_POPULATION = 4


@dataclass(frozen=True)
class Cmaes:
    sigma: float
    population: int | None
    name: str = "cmaes"

    def propose(self, view: View) -> Proposal:
        """The next sample of the current generation. Raises HarnessError when the history is not this search's own."""
        space = _search.space(view)
        size = self.population or default_population(len(space), view.num_experiments)
        values = _replay(space, _search.points(view, space), self.sigma, size, view.search_seed)
        return _search.proposal(view, space, values)


def make(*, sigma: float = 0.1, population: int | None = None) -> Cmaes:
    if not 0 < sigma <= 1:
        raise ConfigError(f"agent.options.sigma must be above 0 and at most 1, not {sigma}")
    if population is not None and population < _SMALLEST_POPULATION:
        raise ConfigError(f"agent.options.population must be at least {_SMALLEST_POPULATION}, not {population}")
    return Cmaes(float(sigma), population)


def default_population(num_knobs: int, num_experiments: int | None) -> int:
    """The usual 4 + 3 ln(n) of Hansen's tutorial, cut so that a session holds a few generations."""
    usual = 4 + math.floor(3 * math.log(num_knobs))
    if num_experiments is None:
        return usual
    return max(_SMALLEST_POPULATION, min(usual, (num_experiments + 1) // _GENERATIONS))


def _replay(
    space: Mapping[str, Knob], points: Sequence[Point], sigma: float, population: int, seed: int
) -> dict[str, Scalar]:
    """What an optimiser that has seen `points` (the stock script first) asks next.

    The seed fixes every answer, so the search's state is rebuilt by asking again and telling what was measured.
    A failed run is told as infinitely bad: CMA-ES uses ranks only.
    """
    from cmaes import CMAwM

    axes = [_Axis(knob) for knob in space.values()]
    start = _vector([axis.to_unit(axis.knob.value) for axis in axes])
    bounds, steps = _vector([[0.0, 1.0]] * len(axes)), _vector([axis.step for axis in axes])
    optimizer = CMAwM(start, sigma, bounds, steps, seed=seed % 2**32, population_size=population)
    generation = [(start, _cost(points[0]))]
    for index in range(len(points)):
        if len(generation) == population:
            optimizer.tell(generation)
            generation = []
        sample, told = optimizer.ask()
        values = {axis.knob.name: axis.from_unit(unit) for axis, unit in zip(axes, sample, strict=True)}
        if index + 1 == len(points):
            return values
        if values != points[index + 1].values:
            raise HarnessError(
                f"cmaes cannot rebuild its search: experiment {index} is not what it proposes today; "
                "resume with the bpbench and cmaes versions that began the session"
            )
        generation.append((told, _cost(points[index + 1])))
    raise AssertionError("points always holds the stock script")


def _cost(point: Point) -> float:
    return math.inf if point.bpb is None else point.bpb


def _vector(values: Sequence[Any]) -> Any:
    from numpy import asarray

    return asarray(values, dtype=float)


@dataclass(frozen=True)
class _Axis:
    """One knob as a coordinate in [0, 1]. `step` is 0 where it is continuous."""

    knob: Knob

    @property
    def step(self) -> float:
        if self.knob.kind in ("float", "log"):
            return 0.0
        return 1.0 / (self._num_values - 1)

    @property
    def _num_values(self) -> int:
        if self.knob.kind == "choice":
            return len(self.knob.choices)
        low, high = self._bounds
        return int(high - low) // self.knob.step + 1

    @property
    def _bounds(self) -> tuple[float, float]:
        assert self.knob.low is not None and self.knob.high is not None
        return self.knob.low, self.knob.high

    def to_unit(self, value: Scalar) -> float:
        if self.knob.kind == "choice":
            return self.knob.choices.index(value) * self.step
        low, high = self._bounds
        if self.knob.kind == "int":
            return (float(value) - low) / self.knob.step * self.step
        if self.knob.kind == "log":
            return math.log(float(value) / low) / math.log(high / low)
        return (float(value) - low) / (high - low)

    def from_unit(self, unit: float) -> Scalar:
        if self.knob.kind == "choice":
            return self.knob.choices[round(unit / self.step)]
        low, high = self._bounds
        if self.knob.kind == "int":
            return int(low) + round(unit / self.step) * self.knob.step
        if self.knob.kind == "log":
            return _search.rounded(self.knob, low * (high / low) ** unit)
        return _search.rounded(self.knob, low + unit * (high - low))
