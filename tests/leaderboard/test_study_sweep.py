"""The sweep: its finalists, its search, the bars of a baseline, and the search on the step clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from study_ledgers import OPENED, place, run

from harness import knobs
from harness.errors import ConfigError
from harness.records import Status
from harness.sizes import TASKS, load, stock_of, stock_sha256
from leaderboard.study import sweep, sweep_page
from leaderboard.study.ledger import Ledger, Run
from leaderboard.study.variants import STOCK


def sweep_ledger(*runs: Run) -> Ledger:
    return Ledger(replace(OPENED, study="sweep"), {"p": place("p")}, {}, runs=runs)


def test_finalists_are_chosen_by_one_run_and_compared_by_others() -> None:
    runs = [run("p", name, 0, bpb) for name, bpb in (("a", 1.2), ("b", 1.1), (STOCK, 1.15), ("tpe-000", 1.0))]
    found = sweep_ledger(*runs, run("p", "b", 1, 1.4), run("p", "a", 1, 1.3), run("p", "c", 0, None))
    assert sweep.finalists(found, 2, among=["a", "b", "c", STOCK]) == ["b", STOCK]
    assert sweep.finalists(found, 2, among=["a", STOCK]) == [STOCK, "a"]
    assert sweep.compared(found) == ["a", "b"], "by the seeds behind the first"
    shown = sweep_page.variants_table(replace(found, opened=replace(found.opened, task="nano_study")), {})
    assert "| b | a point of TPE | 1 | 1.4000 |" in shown


def test_the_search_is_shown_all_points_before_it() -> None:
    stock = stock_of(load(TASKS / "nano_study.yaml"))
    runs = [run("p", STOCK, seed, 1.3) for seed in range(3)]
    points = [
        run("p", "tpe-000", 500, 1.2, knobs={"NUM_LAYERS": 3}),
        run("p", "tpe-001", 501, None, knobs={"NUM_LAYERS": 8}),
    ]
    view = sweep.view(sweep_ledger(*runs, *points), stock, 2, 40)
    assert (view.incumbent_bpb, view.baseline_bpb) == (1.2, 1.3)
    assert knobs.parse(view.incumbent_source)["NUM_LAYERS"].value == 3
    assert [item.status for item in view.history] == [Status.OK, Status.CRASH]
    assert sweep.changed(view.incumbent_source, stock) == {"NUM_LAYERS": 3}


def test_the_bars_of_a_baseline() -> None:
    points = [run("p", f"tpe-{n:03d}", 500 + n, 1.3 - 0.001 * n, knobs={"WARMUP": 0.1}) for n in range(40)]
    small = sweep_ledger(*points)
    winner = sweep.tpe_best(small)
    assert winner.name == "tpe_best-039" and "40 points" in winner.about
    names = {STOCK: 0.96, "prototype": 1.01, "prototype_stock_rates": 1.0, winner.name: 0.94, "tpe_best-007": 0.5}
    found = sweep_ledger(*[run("p", name, seed, bpb) for name, bpb in names.items() for seed in range(3)])

    def written(ledger: Ledger, searched: Ledger = small) -> str:
        return sweep_page.bars(ledger, lambda _: searched)

    assert written(found).count("**holds**") == 1  # 4.0 % below the better prototype
    assert "2.1 % (2.1 to 2.1) lower (bar: at most 2 % lower, of 40 points): **does not hold**" in written(found)
    without = replace(found, runs=tuple(item for item in found.runs if item.variant != "prototype"))
    assert written(without).count("not measured yet") == 1
    two_seeds = replace(found, runs=tuple(item for item in found.runs if item.seed < 2))
    assert written(two_seeds).count("not measured yet") == 2
    cut_off = replace(small, runs=(*small.runs[:5], small.runs[-1]))
    assert written(found, cut_off).count("not measured yet") == 1


def test_a_mean_over_the_bar_with_an_interval_that_reaches_below_it() -> None:
    """Three seeds say little: what the mean says and what is shown are two things."""
    stock, better = {0: 0.96, 1: 0.95, 2: 0.97}, {0: 0.95, 1: 0.97, 2: 0.94}
    prototypes = {name: dict.fromkeys(range(3), 1.05) for name in sweep.PROTOTYPES}
    small = sweep_ledger(*(run("p", f"tpe-{n:03d}", 500 + n, 1.3, knobs={}) for n in range(40)))
    scores = {STOCK: stock, "tpe_best-000": better, **prototypes}
    found = sweep_ledger(*(run("p", name, seed, bpb) for name, row in scores.items() for seed, bpb in row.items()))
    lead, more = sweep_page.bars(found, lambda _: small).splitlines()
    assert lead.endswith("**holds**") and more.endswith("**holds in the mean**")


def test_a_search_counts_where_it_was_made() -> None:
    """Runs of another stage on a second device do not hide what the first one found."""
    searched = [run("p", "tpe-000", 500, 1.2, knobs={})]
    screened = [run("q", STOCK, seed, 1.3) for seed in range(3)]
    both = Ledger(replace(OPENED, study="sweep"), {"p": place("p"), "q": place("q")}, {}, runs=(*screened, *searched))
    found = {"nano_study": both}
    assert sweep.tpe_best(sweep.small_ledger(found, "q", sweep.trials)).name == "tpe_best-000"
    assert sweep.small_ledger(found, "q", sweep.compared).runs == tuple(screened)
    assert sweep.small_ledger({"nano_study": replace(both, runs=tuple(screened))}, "q", sweep.trials) is None


def test_options_that_a_stage_does_not_have() -> None:
    for wish, complaint in (
        (sweep.Wish("tpe", Path("sweep"), variants=("gelu",)), "a search has none"),
        (sweep.Wish("screen", Path("sweep"), hours=float("nan")), "--hours nan: expected above 0"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            sweep.check(wish)


def test_what_was_found_for_another_stock_script_is_not_confirmed() -> None:
    found = sweep_ledger(run("p", "tpe-000", 500, 1.2, knobs={}))
    with pytest.raises(ConfigError, match="is of another stock script"):
        sweep.check_stock(found, sweep.TPE)
    today = stock_sha256(load(TASKS / "nano_study.yaml"))
    sweep.check_stock(replace(found, opened=replace(found.opened, stock_sha256=today)), sweep.TPE)


def test_scores_of_two_places_are_never_averaged() -> None:
    runs = [run("p", STOCK, seed, 1.3) for seed in range(2)] + [run("q", STOCK, 0, 1.1), run("q", "tpe-000", 500, 1.0)]
    both = Ledger(replace(OPENED, study="sweep"), {"p": place("p"), "q": place("q")}, {}, runs=tuple(runs))
    assert both.used() == ("p", "q")
    assert sweep.by_variant(both.at("p")) == {STOCK: {0: 1.3, 1: 1.3}}
    written = sweep_page.sections({"nano_study": both}, {})
    assert written["screen"].count("**Model, ") == 2
    assert "1.3000" in written["screen"].partition("**Model, q")[0]
    assert "1.1000" in written["screen"].partition("**Model, q")[2]


@pytest.mark.slow
def test_a_search_on_the_step_clock_goes_on_where_it_was(tmp_path, bpbench_home, tiny_overrides) -> None:
    wish = sweep.Wish(
        "tpe", tmp_path / "sweep", overrides=tuple(tiny_overrides), seeds=1, trials=1, scratch=tmp_path / "runs"
    )
    assert sweep.measure(wish, lambda _: None)
    assert sweep.measure(replace(wish, trials=2), lambda _: None)
    found = sweep.ledgers(tmp_path / "sweep")["tiny"]
    points = sweep.trials(found)
    assert [item.variant for item in points] == ["tpe-000", "tpe-001"]
    stock = stock_of(load(TASKS / "tiny.yaml"))
    assert all(item.knobs and knobs.apply(stock, item.knobs) != stock for item in points)
