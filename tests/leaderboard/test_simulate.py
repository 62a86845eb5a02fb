"""The simulated error rates: what the board promises, held on simulated boards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leaderboard import simulate
from leaderboard.simulate import DEMO, PUBLISHED, World

WORLDS = pytest.mark.parametrize("world", [PUBLISHED, DEMO], ids=lambda world: world.name)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(11))


@WORLDS
def test_intervals_hold_the_true_mean_as_often_as_they_say(world: World, rng: np.random.Generator) -> None:
    for size, share in simulate.coverage(world, 6000, rng, normal=True).items():
        assert 0.93 <= share <= 0.97, size


@WORLDS
def test_equal_researchers_are_rarely_called_different(world: World, rng: np.random.Generator) -> None:
    for size in simulate.SIZES:
        # Three standard errors of a share of 5 % of 2,000 boards.
        assert simulate.false_differences(world, 2000, rng, size=size) <= 0.05 + 0.015


def test_the_percentile_bootstrap_covers_too_little_with_few_sessions(rng: np.random.Generator) -> None:
    assert simulate.bootstrap_coverage(PUBLISHED, 800, rng, resamples=200)[5] < 0.90


def test_power_grows_with_sessions_and_matches_the_formula(rng: np.random.Generator) -> None:
    from leaderboard.power import power

    gap = 0.003
    curve = simulate.power_curve(PUBLISHED, gap, (5, 10, 20), 4000, rng)
    spread = float(np.hypot(0.003, 0.001 * np.sqrt(2 / 5))) * np.sqrt(2)
    for size, share in curve.items():
        assert share == pytest.approx(power(gap, spread, size), abs=0.03)
    assert curve[5] < curve[10] < curve[20]


@WORLDS
def test_the_confirmed_gain_is_unbiased_and_the_best_of_session_is_not(world: World, rng: np.random.Generator) -> None:
    rules = simulate.keep_rules(world, 8000, rng)
    for rule in rules.values():
        assert abs(rule["confirmed_minus_true"]) < 0.1 * world.seed_sd
    nothing = simulate.best_of(world, (12,), 4000, rng)[12]
    assert nothing[0] > 1.5 * world.seed_sd and abs(nothing[1]) < 0.1 * world.seed_sd


@WORLDS
def test_keeping_only_what_wins_twice_keeps_less_of_nothing(world: World, rng: np.random.Generator) -> None:
    rules = simulate.keep_rules(world, 8000, rng)
    twice, once = rules["better twice"], rules["better once"]
    assert twice["keeps_of_nothing"] < 0.75 * once["keeps_of_nothing"]
    assert twice["false_keep_share"] < once["false_keep_share"]


def test_verdicts_err_as_rarely_as_the_rule_says(rng: np.random.Generator) -> None:
    """A gain that is not there is called reproduced in at most 2.5 %; an honest claim not reproduced in fewer."""
    for pairs in (3, 5):
        boast = simulate.verdict_rates(0.0014, pairs, 0.0, 0.0056, 8000, rng)
        assert boast["reproduced"] <= 0.025 + 0.006
        for gap in (0.0, 0.0028, 0.0056):
            honest = simulate.verdict_rates(0.0014, pairs, gap, gap, 8000, rng)
            assert honest["not reproduced"] <= 0.025
            assert sum(honest.values()) - honest["claims"] == pytest.approx(1.0)


@pytest.mark.slow
def test_the_study_writes_its_data_and_its_plots(tmp_path: Path) -> None:
    assert simulate.main([str(tmp_path / "out"), "--scale", "60"]) == 0
    found = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert set(found["worlds"]) == {"published", "demo"}
    plots = sorted((tmp_path / "out").glob("*.png"))
    assert [path.stem for path in plots] == ["coverage", "keeping", "power"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots)
