"""Plans, ledgers and pages of the studies, and both commands on the step clock."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import study_ledgers
from study_ledgers import OPENED, place, run, study, variants_of

from harness import knobs
from harness.bench import LocalBench
from harness.codec import from_json, to_json
from harness.errors import ConfigError, JournalError
from harness.journal import Journal, read
from harness.records import Calibration, MeterPattern, RunResult, SentinelRate, Status, StockTimes
from harness.sizes import TASKS, load, stock_of
from leaderboard import cli
from leaderboard.study import (
    findings,
    measure,
    page,
    plan,
    portability,
    portability_page,
    portability_plots,
    sweep,
    sweep_page,
)
from leaderboard.study.findings import Held
from leaderboard.study.ledger import (
    CALIBRATED,
    RAW,
    Book,
    Calibrated,
    Ledger,
    Margin,
    Run,
    check_comparable,
    fold,
    read_folder,
)
from leaderboard.study.measure import Hours
from leaderboard.study.places import Site
from leaderboard.study.variants import STOCK

ROOT = Path(__file__).resolve().parents[2]
EFFECTS = {"better": -0.03, "near": 0.004, "nearer": 0.002, "worse": 0.05, "bad": 0.12, "awful": 0.3} | {
    f"v{n}": 0.05 * n for n in range(1, 5)
}
SPEEDS = {"two": 1.0, "one": 0.6, "slow": 0.35}


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return study(SPEEDS, EFFECTS)


def test_a_plan_is_whole_and_balanced_wherever_it_is_cut_off() -> None:
    first, rest = plan.plan(["a", "b", "c"], [f"v{n}" for n in range(10)], 3, 2)
    jobs = [*first, *rest]
    assert len({job.key for job in jobs}) == len(jobs)
    assert {job.place for job in first} == {"a"} and {job.share for job in first} == set(plan.SHARES)
    # 9 stock runs and 3 raw ones, and every variant twice in both modes, at each place.
    assert Counter(job.place for job in jobs) == dict.fromkeys("abc", 12 + 10 * 2 * 2)
    for end in range(len(rest)):
        counts = Counter(job.place for job in rest[:end] if job.variant != STOCK)
        assert max(counts.values(), default=0) - min((counts[key] for key in "abc"), default=0) <= 2 * plan.CHUNK


def test_where_a_margin_is_stated_variants_come_before_other_budgets() -> None:
    names = [f"v{n}" for n in range(10)]
    first, rest = plan.plan(["a"], names, 3, 1, margin_stated=True)
    assert not first and {job.key for job in rest} == {
        job.key for part in plan.plan(["a"], names, 3, 1) for job in part
    }
    last_variant = max(number for number, job in enumerate(rest) if job.variant != STOCK)
    assert all(job.share != 1.0 for job in rest[last_variant + 1 :]) and all(
        job.share == 1.0 for job in rest[: last_variant + 1]
    )


def test_on_the_step_clock_there_are_no_seconds_to_compare() -> None:
    first, rest = plan.plan(["a"], ["v"], 2, 1, ticking=True)
    assert {(job.mode, job.share) for job in (*first, *rest)} == {("ticks", 1.0)}


def test_a_study_is_read_back_and_goes_on(tmp_path) -> None:
    made = run("p", STOCK, 0, 1.3, knobs={"A": 1})
    path = tmp_path / "runs.jsonl"
    book = Book(path, OPENED)
    book.write("place", place("p"))
    book.write("run", made)
    book.close()
    with path.open("a") as file:
        file.write('{"torn')  # a kill in the middle of a line
    again = Book(path, OPENED)
    assert again.ledger().runs == (made,)
    again.write("run", replace(made, seed=1))
    again.close()
    assert [item.seed for item in read_folder(tmp_path).runs] == [0, 1]
    with pytest.raises(ConfigError, match="reference_tokens is 1200000, expected 1: move it"):
        Book(path, replace(OPENED, reference_tokens=1))


def written(path: Path, budget_seconds: float, at: float, raw_seconds: float | None = None) -> None:
    with Journal.create(path, clock=lambda: at) as journal:
        journal.append("study_open", **to_json(replace(OPENED, raw_seconds=raw_seconds)))
        journal.append("place", **to_json(place("p")))
        made = Calibration(100.0, 99.0, 101.0, (100.0,), 5.0, budget_seconds, None, True)
        journal.append("calibrated", **to_json(Calibrated("p", made)))
        journal.append("margin", **to_json(Margin("p", budget_seconds / 1000, 6, 0.004, 0.01)))
        journal.append("run", **to_json(run("p", STOCK, 0, 1.3)))


def test_files_of_two_equal_machines_are_two_places(tmp_path) -> None:
    written(tmp_path / "late.jsonl", 50.0, at=2000.0)
    written(tmp_path / "zero.jsonl", 40.0, at=1000.0)
    merged = read_folder(tmp_path)
    assert set(merged.places) == {"p", "p@zero"} and len(merged.runs) == 2
    assert merged.label("p@zero").endswith("(zero)")
    # The first in time counts, whatever its file is called.
    assert merged.raw_seconds == 40.0 and merged.margin.sigma_bpb == 0.04


def test_raw_seconds_are_those_that_a_study_was_opened_with(tmp_path) -> None:
    written(tmp_path / "runs.jsonl", 50.0, at=1000.0, raw_seconds=45.0)
    assert read_folder(tmp_path).raw_seconds == 45.0


def test_a_margin_that_came_late_is_said_to(tmp_path) -> None:
    written(tmp_path / "late.jsonl", 50.0, at=2000.0)
    assert read_folder(tmp_path).margin_was_first
    with Journal.create(tmp_path / "other.jsonl", clock=lambda: 1000.0) as journal:
        journal.append("study_open", **to_json(OPENED))
        journal.append("place", **to_json(place("q")))
        journal.append("run", **to_json(run("q", STOCK, 0, 1.3)))
    assert not read_folder(tmp_path).margin_was_first


def test_runs_that_do_not_compare_are_refused() -> None:
    comparable = [run("p", "gelu", 0, 1.3, source_sha256="a"), run("q", "gelu", 0, 1.3, source_sha256="a")]
    points = [run(key, "tpe-000", 500, 1.2, knobs={}, source_sha256=key) for key in "pq"]
    raw = run("p", "gelu", 0, 1.3, mode=RAW, budget_seconds=45.0)
    check_comparable([*comparable, *points, raw, run("p", "gelu", 1, 1.3)])
    with pytest.raises(ConfigError, match="gelu: its runs are of two scripts"):
        check_comparable([*comparable, run("r", "gelu", 0, 1.3, source_sha256="b")])
    with pytest.raises(ConfigError, match="raw runs of 45, 50 seconds"):
        check_comparable([raw, replace(raw, place="q", budget_seconds=50.0)])
    # A long setup takes its share of one run's budget, and no study must end of it.
    check_comparable([raw, replace(raw, seed=1, budget_seconds=42.0), replace(raw, place="q")])


def test_a_start_that_is_refused_leaves_no_file(tmp_path, bpbench_home, tiny_overrides) -> None:
    written(tmp_path / "other.jsonl", 50.0, at=1000.0)
    wish = portability.Wish(tmp_path, overrides=tuple(tiny_overrides), scratch=tmp_path / "runs")
    with pytest.raises(ConfigError, match="expected 'nano_study'"):
        portability.measure(wish, lambda _: None)
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["other.jsonl"]


def test_a_place_that_has_changed_is_not_continued(tmp_path) -> None:
    book = Book(tmp_path / "runs.jsonl", OPENED)
    site = Site(place("p"), None, None)
    portability.enter(book, [site])
    portability.enter(book, [site])
    for changed, what in (
        (replace(site.place, clock="wall"), "clock was 'metered' at .* and is 'wall' now"),
        (replace(site.place, identity={"torch_version": "3"}), "torch_version was None at"),
    ):
        with pytest.raises(ConfigError, match=what):
            portability.enter(book, [replace(site, place=changed)])
    book.close()


def test_a_record_of_a_place_that_was_never_described_is_damage(tmp_path) -> None:
    with Journal.create(tmp_path / "runs.jsonl") as journal:
        journal.append("study_open", **to_json(OPENED))
        journal.append("run", **to_json(run("nowhere", STOCK, 0, 1.3)))
    with pytest.raises(JournalError, match="'nowhere', which was never described"):
        read_folder(tmp_path)


def test_findings_of_a_study_whose_answers_are_known(ledger) -> None:
    found = findings.findings(ledger, variants_of(EFFECTS))
    assert found.equivalent is Held.YES and found.same_order is Held.YES
    assert set(found.quiet) == set(SPEEDS)
    cost = 0.01 * study_ledgers.SLOPE
    assert all(item.low < 1.005 * cost < item.high for item in found.slopes.values())
    # With the same seconds everywhere the slowest place loses what its speed costs.
    assert found.raw.spread.largest_gap == pytest.approx(0.42, abs=0.01)
    assert not any(pair.equivalent for pair in found.raw.equivalences)
    assert found.calibrated.spread.largest_gap < 0.002


def test_interaction_between_variants_and_places_shows() -> None:
    effects = {f"v{n}": 0.02 * n for n in range(20)}
    found = findings.findings(study(SPEEDS, effects, interaction_sd=0.04), variants_of(effects))
    assert found.calibrated.interaction.sd == pytest.approx(0.04, rel=0.3)
    assert found.calibrated.interaction.p < 1e-3
    assert found.calibrated.close_interaction is None  # v0 and the stock script are two


def test_a_busy_place_is_no_quiet_place(ledger) -> None:
    runs = [replace(item, correction=0.5) if item.place == "slow" else item for item in ledger.runs]
    found = findings.findings(replace(ledger, runs=tuple(runs)), variants_of(EFFECTS))
    assert set(found.quiet) == {"one", "two"}


def test_one_place_decides_nothing(ledger) -> None:
    alone = replace(ledger, runs=tuple(item for item in ledger.runs if item.place == "two"))
    found = findings.findings(alone, variants_of(EFFECTS))
    assert found.equivalent is Held.UNMEASURED and found.same_order is Held.UNMEASURED


def test_a_place_that_was_not_calibrated_well_or_wandered_is_no_quiet_place(ledger) -> None:
    bad = Calibration(100.0, 50.0, 150.0, (100.0,), 5.0, 40.0, 0.5, calibrated=False)
    assert "one" not in findings.findings(replace(ledger, calibrations={"one": (bad,)}), []).quiet
    runs = [replace(item, correction=None, drift=-0.3) if item.place == "slow" else item for item in ledger.runs]
    assert set(findings.findings(replace(ledger, runs=tuple(runs)), []).quiet) == {"one", "two"}


def test_an_order_that_turns_does_not_hold(ledger) -> None:
    def turned(item: Run) -> Run:
        return replace(item, bpb=2.6 - item.bpb) if item.place == "slow" and item.variant != STOCK else item

    found = findings.findings(replace(ledger, runs=tuple(map(turned, ledger.runs))), variants_of(EFFECTS))
    assert found.same_order is Held.NO and findings.smallest_tau(found.calibrated.agreements, ["two", "slow"]) < 0


def test_few_variants_decide_nothing_and_take_nothing_from_others(ledger) -> None:
    """A third machine that has begun: neither a verdict of its own nor less of one for the others."""
    few = {STOCK, "near", "bad", "awful"}
    begun = tuple(item for item in ledger.runs if item.place != "slow" or item.variant in few)
    found = findings.findings(replace(ledger, runs=begun), variants_of(EFFECTS))
    assert found.calibrated.whole == ("two", "one") and found.same_order is Held.YES
    assert found.calibrated.interaction.num_places == 2 and found.calibrated.interaction.num_variants == 11
    only = tuple(item for item in ledger.runs if item.variant in few)
    assert findings.findings(replace(ledger, runs=only), variants_of(EFFECTS)).same_order is Held.UNMEASURED


def test_a_variant_that_fails_at_one_place_only_is_not_forgotten(ledger) -> None:
    def broken(item: Run) -> Run:
        gone = item.place == "slow" and item.variant == "awful"
        return replace(item, status=Status.OOM, bpb=None) if gone else item

    found = findings.findings(replace(ledger, runs=tuple(map(broken, ledger.runs))), variants_of(EFFECTS))
    assert found.lost == ("awful",) and found.same_order is not Held.YES


def test_the_margin_comes_from_the_first_place_alone(ledger) -> None:
    bare = replace(ledger, margin=None)
    made = findings.margin_of(bare, "two")
    assert made.degrees == 6
    assert made.margin_bpb == 1.5 * made.sigma_bpb
    assert made.slope_bpb_per_percent == pytest.approx(0.004, rel=0.25)
    less = tuple(item for item in bare.runs if item.share != 0.8)
    assert findings.margin_of(replace(bare, runs=less), "two") is None


def test_a_page_says_what_is_not_measured(tmp_path) -> None:
    written = portability_page.sections(Ledger(), None, [])
    assert set(written.values()) == {page.UNMEASURED}
    assert set(sweep_page.sections({}, {}).values()) == {page.UNMEASURED}


def test_a_page_and_its_plots_are_made_of_the_data_alone(ledger, tmp_path) -> None:
    failed = run("one", "no|sy", 7, None, reason="<b>boom</b>")
    whole = replace(ledger, runs=(*ledger.runs, failed))
    found = findings.findings(whole, variants_of(EFFECTS))
    written = portability_page.sections(whole, found, variants_of(EFFECTS))
    assert "**holds** (3 quiet of 3 places)" in written["verdicts"]
    assert "3 of 3 places have 10 variants)" in written["verdicts"]
    assert r"no\|sy" in written["failures"] and "<b>" not in written["failures"]
    assert page.UNMEASURED not in written.values()
    drawn = portability_plots.draw(found, tmp_path)
    assert [path.name for path in drawn] == ["baseline.png", "ranking.png", "slope.png"]
    assert all(path.stat().st_size > 5000 for path in drawn)


def test_only_what_is_between_markers_changes(tmp_path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- a -->\nold\n<!-- end a -->\nafter\n")
    for _ in range(2):
        page.fill(path, {"a": r"new \1"})
        assert path.read_text() == "before\n<!-- a -->\n\nnew \\1\n\n<!-- end a -->\nafter\n"
    with pytest.raises(ConfigError, match="expected one '<!-- b -->'"):
        page.fill(path, {"b": "new"})


@pytest.mark.parametrize("name", ["portability", "baseline"])
def test_the_pages_of_the_repository_are_what_their_data_say(name, tmp_path) -> None:
    stored = ROOT / "docs" / f"{name}.md"
    copy = tmp_path / f"{name}.md"
    copy.write_text(stored.read_text())
    (tmp_path / name).mkdir()
    for data in (ROOT / "docs" / name).glob("*.jsonl"):
        (tmp_path / name / data.name).write_bytes(data.read_bytes())
    report = portability.report if name == "portability" else sweep_page.report
    report(tmp_path / name, copy, lambda _: None)
    assert copy.read_text() == stored.read_text()


def test_nothing_is_begun_that_would_end_after_the_hours() -> None:
    now = [0.0]
    hours = Hours(1.0, now=lambda: now[0])
    hours.took(600.0)
    now[0] = 2900.0
    assert not hours.over
    now[0] = 3100.0
    assert hours.over and not Hours(None, now=lambda: 1e9).over


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
    assert "2.1 % (2.1 to 2.1) lower (bar: at most 2 %, of 40 points): **does not hold**" in written(found)
    without = replace(found, runs=tuple(item for item in found.runs if item.variant != "prototype"))
    assert written(without).count("not measured yet") == 1
    two_seeds = replace(found, runs=tuple(item for item in found.runs if item.seed < 2))
    assert written(two_seeds).count("not measured yet") == 2
    cut_off = replace(small, runs=(*small.runs[:5], small.runs[-1]))
    assert written(found, cut_off).count("not measured yet") == 1


def test_what_was_found_for_another_stock_script_is_not_confirmed() -> None:
    found = sweep_ledger(run("p", "tpe-000", 500, 1.2, knobs={}))
    with pytest.raises(ConfigError, match="is of another stock script"):
        sweep.check_stock(found)
    today = hashlib.sha256(stock_of(load(TASKS / "nano_study.yaml")).encode()).hexdigest()
    sweep.check_stock(replace(found, opened=replace(found.opened, stock_sha256=today)))


def test_scores_of_two_places_are_never_averaged() -> None:
    runs = [run("p", STOCK, seed, 1.3) for seed in range(2)] + [run("q", STOCK, 0, 1.1), run("q", "tpe-000", 500, 1.0)]
    both = Ledger(replace(OPENED, study="sweep"), {"p": place("p"), "q": place("q")}, {}, runs=tuple(runs))
    assert both.used() == ("p", "q")
    assert sweep.by_variant(both.at("p")) == {STOCK: {0: 1.3, 1: 1.3}}
    written = sweep_page.sections({"nano_study": both}, {})
    assert written["screen"].count("**Model, ") == 2
    assert "1.3000" in written["screen"].partition("**Model, q")[0]
    assert "1.1000" in written["screen"].partition("**Model, q")[2]


def test_portability_on_the_step_clock_goes_on_where_it_was(tmp_path, bpbench_home, tiny_overrides) -> None:
    wish = portability.Wish(
        tmp_path / "study",
        overrides=tuple(tiny_overrides),
        variants=("gelu",),
        stock_seeds=2,
        scratch=tmp_path / "runs",
    )
    said: list[str] = []
    assert portability.measure(wish, said.append)
    path = tmp_path / "study" / "runs.jsonl"
    before = path.read_bytes()
    assert portability.measure(wish, said.append)
    assert path.read_bytes() == before
    assert portability.measure(replace(wish, variants=("gelu", "narrow_mlp")), said.append)
    assert path.read_bytes().startswith(before)
    found = read_folder(tmp_path / "study")
    assert {(item.variant, item.seed) for item in found.runs} == {
        (STOCK, 0),
        (STOCK, 1),
        ("gelu", 0),
        ("narrow_mlp", 0),
    }
    assert all(item.status is Status.OK and item.steps == 20 for item in found.runs)
    assert found.margin is not None and [record.type for record in read(path)[0]][-1] == "run"
    arguments = ["portability", "--report", "--out", str(tmp_path / "study")]
    assert cli.main(arguments) == 0
    assert cli.main(["sweep", "tpe", *arguments[1:]]) != 0  # of another study


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


def test_the_commands_name_what_is_wrong(tmp_path, capsys) -> None:
    for arguments, what in (
        (["portability", "--hours", "0"], "--hours 0: expected above 0"),
        (["portability", "--raw-seconds", "-1"], "--raw-seconds -1: expected above 0"),
        (["portability", "--settings", "two_treads"], "no setting 'two_treads'; did you mean 'two_threads'?"),
        (["portability", "--variants", "wiede"], "did you mean 'wide'?"),
        (["portability", "--file", "../x"], "expected a plain name"),
        (["sweep", "screen", "--trials", "0"], "expected at least 1"),
    ):
        assert cli.main([*arguments, "--out", str(tmp_path)]) == cli.cli.EXIT_USAGE
        assert what in capsys.readouterr().err


def test_a_calibration_is_kept_as_it_was_made() -> None:
    made = Calibrated("p", Calibration(1.0, 0.9, 1.1, (1.0,), 5.0, 40.0, None, True))
    assert from_json(Calibrated, to_json(made)) == made
    assert {CALIBRATED, RAW} == {"calibrated", "raw"} and fold({}) == Ledger(places={}, calibrations={})


CALIBRATION = Calibration(
    100.0, 99.0, 101.0, (100.0,), 5.0, 60.0, None, True,
    pattern=MeterPattern(2.0, 0.1, 1.0), sentinel=SentinelRate(50.0, 0.01),
)  # fmt: skip


def a_bench() -> LocalBench:
    """Enough of one to be given budgets: nothing runs."""
    return LocalBench(load(TASKS / "nano_study.yaml"), *[object()] * 2, Path(), sentinel=object())


def test_a_share_of_the_budget_is_a_share_of_its_work_and_seconds() -> None:
    ready = measure.prepared(a_bench(), plan.Job("p", STOCK, 0, CALIBRATED, 0.8), CALIBRATION, 40.0)
    assert ready.task.reference_tokens == 1_600_000 and ready.calibration.budget_seconds == 48.0
    assert ready.calibration.pattern is not None and ready.sentinel is not None
    assert load(TASKS / "nano_study.yaml").reference_tokens == 2_000_000


def test_raw_seconds_are_seconds_and_nothing_corrects_them() -> None:
    ready = measure.prepared(a_bench(), plan.Job("p", "wide", 0, RAW), CALIBRATION, 40.0)
    assert ready.calibration.budget_seconds == 40.0 and ready.task.reference_tokens == 2_000_000
    assert ready.calibration.pattern is None and ready.sentinel is None
    assert ready.device_speed() == () and ready.request("run", "source", 0).metered is None


def test_by_the_wall_clock_a_run_beside_a_change_of_speed_is_noticed() -> None:
    bench = a_bench().knowing(CALIBRATION, StockTimes())
    steady, slow = (RunResult(Status.OK, "val", sentinel=(rate, rate)) for rate in (50.0, 30.0))
    assert not measure.drifted(bench, steady) and measure.drifted(bench, slow)
    assert measure.recorded(plan.Job("p", STOCK, 0, CALIBRATED), slow, CALIBRATION, None).drift == pytest.approx(-0.4)
