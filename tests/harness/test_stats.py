from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest

from harness import seeds, stats
from harness.records import Role, RunResult, Status


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


def test_the_ratio_interval_covers_and_narrows_when_both_move_together() -> None:
    rng = random.Random(1)
    hits = 0
    for _ in range(1000):
        speed = [rng.uniform(0.5, 1.5) for _ in range(40)]  # what wanders, alike for both
        a = [1.1 * x * rng.gauss(1.0, 0.05) for x in speed]
        b = [x * rng.gauss(1.0, 0.05) for x in speed]
        ratio = stats.ratio_interval(a, b)
        hits += ratio.low <= 1.1 <= ratio.high
    assert 0.92 < hits / 1000 < 0.98
    apart = stats.ratio_interval(a, rng.sample(b, len(b)))
    assert apart.high - apart.low > 2 * (ratio.high - ratio.low)


def test_errors_that_last_widen_the_ratio_interval() -> None:
    slow = [1.0 + 0.1 * (1 if index // 10 % 2 else -1) for index in range(60)]
    fast = [1.0 + 0.1 * (1 if index % 2 else -1) for index in range(60)]
    ones = [1.0] * 60
    lasting, alternating = stats.ratio_interval(slow, ones), stats.ratio_interval(fast, ones)
    assert lasting.inflation > 5 and alternating.inflation == 1.0
    assert lasting.high - lasting.low > 2 * (alternating.high - alternating.low)
