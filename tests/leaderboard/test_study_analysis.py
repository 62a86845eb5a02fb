"""The statistics of the studies, on numbers whose answers are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kendalltau, ttest_rel

from leaderboard.study import analysis, ranking


def test_slope_of_an_exact_line_is_exact() -> None:
    points = [(share, 1.3 - 0.4 * math.log(share)) for share in (0.8, 1.0, 1.25)]
    found = analysis.slope(points)
    assert found is not None
    cost = 0.4 * (math.log(1.0) - math.log(0.99))
    assert found.per_percent == pytest.approx(cost)
    assert (found.low, found.high) == pytest.approx((cost, cost))


def test_slope_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    shares = np.array([0.8, 1.0, 1.25] * 3)
    cost = -0.4 * math.log(0.99)
    found = [
        analysis.slope(list(zip(shares, 1.3 - 0.4 * np.log(shares) + rng.normal(0, 0.01, 9), strict=True)))
        for _ in range(1000)
    ]
    assert np.mean([item.low <= cost <= item.high for item in found]) == pytest.approx(0.95, abs=0.025)


def test_slope_needs_two_budgets_and_three_runs() -> None:
    assert analysis.slope([(1.0, 1.3), (0.8, 1.4)]) is None
    assert analysis.slope([(1.0, 1.3), (1.0, 1.31), (1.0, 1.29)]) is None


def test_spread_of_two_places() -> None:
    found = analysis.spread({"a": {0: 1.0, 1: 1.2}, "b": {0: 1.3, 1: 1.5}})
    assert found.largest_gap == pytest.approx(0.3)
    assert found.between_sd == pytest.approx(0.3 / math.sqrt(2))
    assert found.seed_sd == pytest.approx(math.sqrt(0.02)) and found.degrees == 2


def test_seeds_that_only_some_places_have_do_not_pull_them_apart() -> None:
    many = {"a": {0: 1.0, 1: 1.1, 2: 1.2, 3: 9.0}, "b": {0: 1.1, 1: 1.2, 2: 1.3}}
    found = analysis.spread(many)
    assert found.largest_gap == pytest.approx(0.1) and found.degrees == 5, "all seeds tell of seeds"
    begun = analysis.spread({**many, "c": {5: 7.0}})
    assert begun == found
    alone = analysis.spread({"a": many["b"], "c": {0: 7.0}})
    assert alone.seed_sd == pytest.approx(0.1) and alone.degrees == 2


def test_paired_seeds_are_compared_pair_by_pair() -> None:
    """Seeds differ by ten margins, places by a fifth of one: only pairing shows it."""
    one = {0: 1.0, 1: 1.1, 2: 1.2}
    other = {0: 1.0021, 1: 1.1019, 2: 1.202}
    found = analysis.equivalence(("a", one), ("b", other), margin=0.01, sigma=0.05, degrees=6)
    assert found is not None and found.paired and found.equivalent
    checked = ttest_rel(list(other.values()), list(one.values())).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((checked.low, checked.high))


def test_two_seeds_are_too_few_to_call_places_equivalent() -> None:
    found = analysis.equivalence(("a", {0: 1.0, 1: 1.0}), ("b", {0: 1.0, 1: 1.0}), margin=1.0, sigma=0.01, degrees=6)
    assert found is not None and not found.paired and not found.equivalent
    assert analysis.equivalence(("a", {0: 1.0}), ("b", {1: 1.0}), margin=1.0, sigma=0.01, degrees=6) is None


def test_places_that_differ_by_the_margin_are_called_equivalent_one_time_in_twenty() -> None:
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(2000):
        base = rng.normal(1.3, 0.01, 4)
        moved = base + 0.01 + rng.normal(0, 0.002, 4)
        found = analysis.equivalence(("a", dict(enumerate(base))), ("b", dict(enumerate(moved))), 0.01, 0.01, 6)
        wrong += found.equivalent
    assert wrong / 2000 == pytest.approx(0.05, abs=0.015)


def scored(*values: float) -> dict[str, float]:
    return {f"v{number}": value for number, value in enumerate(values)}


def test_tau_is_scipys_and_clear_pairs_are_counted_alone() -> None:
    one, other = scored(1.0, 1.1, 1.2, 1.201), scored(1.0, 1.12, 1.21, 1.205)
    clear = ranking.clear_pairs(one, other, sigma=0.02)
    assert len(clear) == 5  # all but the two that lie close together
    found = ranking.agreement(("a", one), ("b", other), clear)
    assert found is not None
    assert found.tau == pytest.approx(kendalltau(list(one.values()), list(other.values())).statistic)
    assert found.clear_tau == 1.0 and found.num_clear == 5
    assert found.low <= found.tau <= found.high
    assert (found.clear_low, found.clear_high) == (1.0, 1.0)


def test_a_reversed_order_has_tau_minus_one() -> None:
    one, other = scored(1, 2, 3, 4), scored(4, 3, 2, 1)
    clear = ranking.clear_pairs(one, other, sigma=0.1)
    assert clear == set(itertools.combinations(one, 2)), "pairs that turn are the ones that matter"
    found = ranking.agreement(("a", one), ("b", other), clear)
    assert found is not None and found.tau == found.clear_tau == -1.0


def test_only_seeds_that_all_places_have_are_compared() -> None:
    """The shared part of seed 1 is in one place's mean only, unless it is left out."""
    table = {"a": {"v": {0: 1.0, 1: 1.2}, "w": {0: 1.0}}, "b": {"v": {0: 1.0}}, "c": {"w": {3: 1.0}}}
    assert analysis.aligned(table) == {"a": {"v": {0: 1.0}}, "b": {"v": {0: 1.0}}, "c": {}}
    assert analysis.gaps({0: 1.1, 7: 9.0}, {0: 1.0, 1: 1.5}) == [pytest.approx(0.1)]
    assert analysis.gaps({7: 1.5}, {0: 1.0, 1: 1.2}) == [pytest.approx(0.4)]


def test_places_that_differ_are_not_merely_not_shown_equal() -> None:
    one = {seed: 1.0 + 0.01 * seed for seed in range(3)}
    moves = ([0.05] * 3, [0.001] * 3, [0.02, -0.02, 0])
    far, near, odd = ({seed: bpb + by[seed] for seed, bpb in one.items()} for by in moves)
    found = [analysis.equivalence(("a", one), ("b", other), 0.01, 0.01, 6) for other in (far, near, odd)]
    assert [(item.equivalent, item.different) for item in found] == [(False, True), (True, False), (False, False)]


def test_how_many_seeds_equal_places_need_without_anything_in_common() -> None:
    rng = np.random.default_rng(5)
    assert analysis.half_width(4, 0.01) > 0.015 > analysis.half_width(5, 0.01)
    shown = 0
    for _ in range(1000):
        pair = [dict(enumerate(rng.normal(1.3, 0.01, 3))) for _ in range(2)]
        shown += analysis.equivalence(("a", pair[0]), ("b", pair[1]), 0.015, 0.01, 6).equivalent
    assert shown / 1000 < 0.25, "three seeds show it rarely"


def test_no_ranking_of_two_variants_and_no_clear_tau_of_equals() -> None:
    assert ranking.agreement(("a", scored(1, 2)), ("b", scored(1, 2)), set()) is None
    found = ranking.agreement(("a", scored(1, 2, 3)), ("b", scored(1, 2, 3)), set())
    assert found is not None and found.clear_tau is None and found.num_clear == 0


def layout(rng: np.random.Generator, interaction_sd: float, sigma: float, variants: int = 60) -> analysis.Table:
    """Four places, two seeds in each cell."""
    cells = rng.normal(0, 0.1, (4, 1)) + rng.normal(0, 0.1, variants) + interaction_sd * rng.normal(0, 1, (4, variants))
    return {
        f"p{row}": {f"v{column}": dict(enumerate(cell + rng.normal(0, sigma, 2))) for column, cell in enumerate(values)}
        for row, values in enumerate(cells)
    }


def test_interaction_is_found_and_not_made_up() -> None:
    rng = np.random.default_rng(3)
    none = ranking.interaction(layout(rng, 0.0, 0.01), sigma=0.01, sigma_degrees=1000)
    some = ranking.interaction(layout(rng, 0.02, 0.01), sigma=0.01, sigma_degrees=1000)
    assert none is not None and some is not None
    assert none.noise_sd == pytest.approx(0.01 / math.sqrt(2))
    assert none.low < none.noise_sd < none.high and none.p > 0.01
    assert some.sd == pytest.approx(0.02, rel=0.15) and some.p < 1e-6
    assert some.gain_error == 2 * some.sd and some.sd < some.sd_high < 1.3 * some.sd
    assert none.sd_high > 0 and none.gain_error_high == 2 * none.sd_high, "nothing found is not nothing there"


def test_what_seeds_have_in_common_is_no_noise_of_interaction() -> None:
    rng = np.random.default_rng(4)
    shared, own = rng.normal(0, 0.1, 300), rng.normal(0, 0.01, (3, 300))
    found = ranking.seed_noise({f"p{row}": dict(enumerate(row + shared + own[row])) for row in range(3)})
    assert found is not None and found[0] == pytest.approx(0.01, rel=0.1) and found[1] == 2 * 299
    begun = ranking.seed_noise({"a": {0: 1.0, 1: 1.1}, "b": {0: 1.0, 1: 1.1}, "late": {0: 2.0}})
    assert begun is not None and begun[1] == 1, "a place with one seed does not take the others'"
    assert ranking.seed_noise({"a": {0: 1.0, 1: 1.1}}) is None
    assert ranking.seed_noise({"a": {0: 1.0, 1: 1.1}, "b": {1: 1.0, 2: 1.1}}) is None


def test_an_exact_additive_layout_leaves_nothing() -> None:
    table = {place: {f"v{n}": {0: base + 0.1 * n} for n in range(4)} for place, base in (("a", 1.0), ("b", 1.3))}
    found = ranking.interaction(table, sigma=0.01, sigma_degrees=10)
    assert found is not None
    assert found.residual_sd == pytest.approx(0, abs=1e-12) and found.sd == 0 and found.degrees == 3
    assert ranking.interaction({"a": table["a"]}, sigma=0.01, sigma_degrees=10) is None


def test_unmeasured_variants_and_places_are_left_out_of_the_layout() -> None:
    full = {f"v{n}": {0: 1.0 + 0.1 * n} for n in range(5)}
    table = {"a": full, "b": {name: full[name] for name in ("v0", "v1", "v2", "v4")}, "late": {"v0": {0: 1.0}}}
    found = ranking.interaction(table, sigma=0.01, sigma_degrees=10)
    assert found is not None and (found.num_places, found.num_variants) == (2, 4)
