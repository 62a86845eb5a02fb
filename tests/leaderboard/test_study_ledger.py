"""Files of the studies: read back, merged and continued, and refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from study_ledgers import OPENED, place, run

from harness.codec import from_json, to_json
from harness.errors import ConfigError, JournalError
from harness.journal import Journal
from harness.records import Calibration
from leaderboard.study import portability
from leaderboard.study.ledger import (
    CALIBRATED,
    RAW,
    Book,
    Calibrated,
    Ledger,
    Margin,
    check_comparable,
    fold,
    read_folder,
)
from leaderboard.study.places import Site
from leaderboard.study.variants import STOCK


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


def test_files_with_and_without_the_option_go_together(tmp_path) -> None:
    """Of two machines one may have been told the seconds that the other found."""
    written(tmp_path / "first.jsonl", 50.0, at=1000.0)
    written(tmp_path / "second.jsonl", 40.0, at=2000.0, raw_seconds=50.0)
    merged = read_folder(tmp_path)
    assert merged.raw_seconds == 50.0
    wish = portability.Wish(tmp_path, raw_seconds=50.0)
    portability.check_seconds(wish, merged)
    with pytest.raises(ConfigError, match=r"--raw-seconds 45.0: the study in .* has 50.0"):
        portability.check_seconds(replace(wish, raw_seconds=45.0), merged)
    written(tmp_path / "third.jsonl", 40.0, at=3000.0, raw_seconds=45.0)
    with pytest.raises(ConfigError, match="files begun with 45, 50 raw seconds do not compare"):
        read_folder(tmp_path)
    # What was run counts, whatever a file was begun with.
    with Journal.create(tmp_path / "ran.jsonl", clock=lambda: 4000.0) as journal:
        journal.append("study_open", **to_json(OPENED))
        journal.append("place", **to_json(place("q")))
        journal.append("run", **to_json(run("q", STOCK, 0, 1.3, mode=RAW, budget_seconds=49.0, raw_seconds=48.0)))
    assert read_folder(tmp_path).raw_seconds == 48.0


def test_damage_names_its_file(tmp_path) -> None:
    written(tmp_path / "good.jsonl", 50.0, at=1000.0)
    with Journal.create(tmp_path / "foreign.jsonl") as journal:
        journal.append("session_open", key={})
    with pytest.raises(JournalError, match=r"foreign.jsonl: line 1: expected a record study_open"):
        read_folder(tmp_path)
    with pytest.raises(JournalError, match=r"foreign.jsonl: line 1: expected a record study_open"):
        Book(tmp_path / "foreign.jsonl", OPENED)


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
    check_comparable([raw, replace(raw, place="q", budget_seconds=44.7, raw_seconds=45.0)])
    with pytest.raises(ConfigError, match="raw runs of 45, 50 seconds"):
        check_comparable([replace(raw, seed=seed, raw_seconds=seconds) for seed, seconds in enumerate((45.0, 50.0))])


def test_a_start_that_is_refused_leaves_no_file(tmp_path, bpbench_home, tiny_overrides) -> None:
    written(tmp_path / "other.jsonl", 50.0, at=1000.0)
    wish = portability.Wish(tmp_path, overrides=tuple(tiny_overrides), scratch=tmp_path / "runs")
    with pytest.raises(ConfigError, match="task is 'nano_study', expected 'tiny'"):
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


def test_a_calibration_is_kept_as_it_was_made() -> None:
    made = Calibrated("p", Calibration(1.0, 0.9, 1.1, (1.0,), 5.0, 40.0, None, True))
    assert from_json(Calibrated, to_json(made)) == made
    assert {CALIBRATED, RAW} == {"calibrated", "raw"} and fold({}) == Ledger(places={}, calibrations={})
