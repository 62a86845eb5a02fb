from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest

from harness import seeds, stats
from harness.calibrate import assess, check_budget
from harness.config import TaskConfig
from harness.errors import DeviceError
from harness.records import Calibration, CurvePoint, Role, RunResult, Status


def run(bpb: float | None, status: Status = Status.OK) -> RunResult:
    return RunResult(status=status, split="test", bpb=bpb)


def test_sigma_lies_between_the_prior_and_the_data() -> None:
    assert stats.pooled_sigma([], 0.02) == pytest.approx(0.02)
    noisy = stats.pooled_sigma([[1.0, 1.1, 0.9]], 0.02)
    assert 0.02 < noisy < stdev([1.0, 1.1, 0.9])
    many = [[rng.gauss(level, 0.01) for _ in range(3)] for level in range(200) for rng in [random.Random(level)]]
    assert stats.pooled_sigma(many, 0.02) == pytest.approx(0.01, rel=0.1)


def test_gain_is_paired() -> None:
    gain = stats.confirmed_gain([run(1.0), run(1.2), run(1.1)], [run(0.9), run(1.1), run(0.99)])
    assert gain.num_pairs == 3
    assert gain.mean_bpb == pytest.approx(fmean([0.1, 0.1, 0.11]))
    # 4.302653 is the 97.5 % point of Student's t with two degrees of freedom (any table).
    half = 4.302653 * stdev([0.1, 0.1, 0.11]) / 3**0.5
    assert (gain.low_bpb, gain.high_bpb) == pytest.approx((gain.mean_bpb - half, gain.mean_bpb + half))


def test_a_candidate_that_fails_once_has_no_gain() -> None:
    gain = stats.confirmed_gain([run(1.0), run(1.2)], [run(0.9), run(None, Status.CRASH)])
    assert (gain.num_pairs, gain.mean_bpb, gain.low_bpb) == (1, None, None)
    assert stats.confirmed_gain([run(1.0)], [run(None, Status.OOM)]).mean_bpb is None


def test_the_t_interval_covers() -> None:
    rng = random.Random(0)
    hits = 0
    for _ in range(2000):
        low, high = stats.t_interval([rng.gauss(0.0, 1.0) for _ in range(5)])
        hits += low <= 0.0 <= high
    assert 0.935 < hits / 2000 < 0.965


def test_one_disturbed_block_does_not_move_the_rate() -> None:
    calm = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8]
    middle, low, high = stats.median_interval([*calm, 30.0])
    assert 99 < low < middle < high < 101


def test_seeds_are_dealt() -> None:
    first = seeds.deal("demo", 0, Role.BASELINE, 0, "nonce")
    assert first == seeds.deal("demo", 0, Role.BASELINE, 0, "other nonce")
    others = [
        seeds.deal("nano", 0, Role.BASELINE, 0, "nonce"),
        seeds.deal("demo", 1, Role.BASELINE, 0, "nonce"),
        seeds.deal("demo", 0, Role.EXPERIMENT, 0, "nonce"),
        seeds.deal("demo", 0, Role.BASELINE, 1, "nonce"),
    ]
    assert len({first, *others}) == 5 and all(0 <= seed < 2**63 for seed in others)
    pair = [seeds.deal("demo", 0, role, 0, "nonce") for role in (Role.CONFIRM_BASELINE, Role.CONFIRM_CANDIDATE)]
    assert pair[0] == pair[1] != seeds.deal("demo", 0, Role.CONFIRM_BASELINE, 0, "other nonce")


TASK = TaskConfig(
    name="demo",
    reference_tokens=100_000,
    vocab_size=1024,
    sequence_length=128,
    slope_bpb_per_percent=0.005,
    min_budget_seconds=8.0,
    max_budget_seconds=60.0,
)


def curve(rates: list[float], block_seconds: float = 1.2) -> list[CurvePoint]:
    """A log with ten lines a block at the given tokens per second, after two seconds of settling at a tenth."""
    points, seconds, tokens = [], 0.0, 0.0
    for rate in [rates[0] / 10, rates[0] / 10, *rates]:
        for _ in range(10):
            seconds += block_seconds / 10 + 1e-9
            tokens += rate * block_seconds / 10
            points.append(CurvePoint(seconds, len(points), 1.0, int(tokens)))
    return points


def test_calibration_ignores_the_settling_time() -> None:
    result = assess(curve([10_000.0] * 8), TASK, 0.02, 1.2)
    assert result is not None and result.calibrated
    assert result.tokens_per_second == pytest.approx(10_000, rel=1e-3)
    assert result.budget_seconds == pytest.approx(10.0, rel=1e-3)


def test_calibration_needs_six_blocks_and_a_narrow_interval() -> None:
    assert assess(curve([10_000.0] * 4), TASK, 0.02, 1.2) is None
    wild = assess(curve([10_000.0, 14_000.0] * 4), TASK, 0.02, 1.2)
    assert wild is not None and not wild.calibrated and wild.gate_bpb is not None and wild.gate_bpb > 0.01


@pytest.mark.parametrize(("budget", "word"), [(5.0, "too fast"), (70.0, "too slow")])
def test_a_budget_that_does_not_fit_is_refused_not_clamped(budget: float, word: str) -> None:
    with pytest.raises(DeviceError, match=word):
        check_budget(Calibration(1.0, 0.9, 1.1, (1.0,), 1.0, budget, 0.0, True), TASK)
