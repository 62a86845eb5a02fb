"""The simulated error rates: what the board promises, held on simulated boards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.records import RunResult, Status
from harness.stats import confirmed_gain
from leaderboard import simulate, simulate_rules
from leaderboard.simulate import DEMO, PUBLISHED, World
from leaderboard.verdict import Word, judge

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
    """A gain that is not there is called reproduced in at most 2.5 %; an honest claim not reproduced in 0.5 %."""
    for pairs in (3, 5):
        boast = simulate_rules.verdict_rates(pairs, 0.0, 4.0, 8000, rng)
        assert boast["reproduced"] <= 0.025 + 0.006
        for gap in (0.0, 2.0, 4.0):
            honest = simulate_rules.verdict_rates(pairs, gap, gap, 8000, rng)
            assert honest["contested of all"] <= 0.005 + 0.0024  # three standard errors
            words = sum(honest[word] for word in ("reproduced", "not reproduced", "inconclusive"))
            assert words == pytest.approx(1.0)


def test_the_simulated_verdict_is_the_rule(rng: np.random.Generator) -> None:
    """The same draws, judged one by one as reproductions are."""
    for truth, claimed in ((0.0, 0.0), (2.0, 2.0), (1.0, 4.0)):
        state = rng.bit_generator.state
        rates = simulate_rules.verdict_rates(5, truth, claimed, 300, rng)
        rng.bit_generator.state = state
        claims, here = rng.normal(claimed, 1.0, (300, 5)), rng.normal(truth, 1.0, (300, 5))
        runs = [([ok(9.0)] * 5, [ok(9.0 - value) for value in values]) for values in claims]
        gains = [confirmed_gain(*run) for run in runs]
        words = [
            judge(gain, list(values), 0).word
            for gain, values in zip(gains, here, strict=True)
            if gain.low_bpb is not None and (gain.low_bpb > 0) == (claimed > 0)
        ]
        for word in Word:
            assert words.count(word) / len(words) == pytest.approx(rates[word.value])


def ok(bpb: float) -> RunResult:
    return RunResult(Status.OK, "test", bpb=bpb)


def test_choosing_the_number_of_sessions_helps_and_the_row_test_does_not_mind_honesty(rng: np.random.Generator) -> None:
    chosen = simulate_rules.stopping(range(5, 21), 4000, rng)
    assert chosen["bias"] > 0.1 and chosen["called better"] > 2 * chosen["called better, number fixed"]
    assert simulate_rules.row_rates(5, 2.0, 2.0, 8000, rng)["by all together"] <= 0.005 + 0.0024
    false = simulate_rules.row_rates(10, 0.0, 1.0, 2000, rng)
    assert false["by all together"] > 2 * false["by a session"]


@pytest.mark.slow
def test_the_study_writes_its_data_and_its_plots(tmp_path: Path) -> None:
    assert simulate.main([str(tmp_path / "out"), "--scale", "60"]) == 0
    found = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert set(found["worlds"]) == {"published", "demo"} and {"verdicts", "rows", "stopping"} <= set(found)
    plots = sorted((tmp_path / "out").glob("*.png"))
    assert [path.stem for path in plots] == ["coverage", "keeping", "power"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots)
