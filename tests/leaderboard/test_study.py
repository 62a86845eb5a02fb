"""Plans, budgets and pages of the studies, portability on the step clock, and both commands."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from harness.bench import LocalBench
from harness.errors import ConfigError
from harness.journal import read
from harness.records import Calibration, MeterPattern, RunResult, SentinelRate, Status, StockTimes
from harness.sizes import TASKS, load
from leaderboard import cli, page
from leaderboard.study import measure, plan, portability, portability_page, sweep_page
from leaderboard.study.ledger import CALIBRATED, RAW, Ledger, read_folder
from leaderboard.study.measure import Hours
from leaderboard.study.variants import STOCK

ROOT = Path(__file__).resolve().parents[2]


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


def test_a_page_says_what_is_not_measured(tmp_path) -> None:
    written = portability_page.sections(Ledger(), None, [])
    assert set(written.values()) == {page.UNMEASURED}
    assert set(sweep_page.sections({}, {}).values()) == {page.UNMEASURED}


def test_only_what_is_between_markers_changes(tmp_path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- a -->\nold\n<!-- end a -->\nafter\n")
    for _ in range(2):
        page.fill(path, {"a": r"new \1"})
        assert path.read_text() == "before\n<!-- a -->\n\nnew \\1\n\n<!-- end a -->\nafter\n"
    with pytest.raises(ConfigError, match="expected one '<!-- b -->'"):
        page.fill(path, {"b": "new"})


@pytest.mark.parametrize("command", [["portability"], ["sweep", "screen"]])
def test_a_page_is_neither_emptied_nor_found_wrong_after_hours(command, tmp_path, capsys) -> None:
    """`--out` left out is a folder without data; markers are looked for before anything is measured."""
    stored = (ROOT / "docs" / "portability.md").read_text() + (ROOT / "docs" / "baseline.md").read_text()
    whole, bare = tmp_path / "page.md", tmp_path / "bare.md"
    whole.write_text(stored.replace("<!-- failures -->", "<!-- x -->", 1))  # both pages have that marker
    bare.write_text("no markers\n")
    before = whole.read_text()
    assert cli.main([*command, "--report", "--out", str(tmp_path / "none"), "--page", str(whole)]) == 2
    assert "holds no data" in capsys.readouterr().err and whole.read_text() == before
    assert cli.main([*command, "task=none", "--out", str(tmp_path / "none"), "--page", str(bare)]) == 2
    assert "expected one '<!--" in capsys.readouterr().err


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


@pytest.mark.slow
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
