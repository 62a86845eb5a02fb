"""Whose sessions are published: standard researchers, asked as everybody asks them, on official boards."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import publishing
import pytest
from changed_openings import config, opened
from doctored import Lines, bundled, data, finished, lines_of

from harness.compose import compose
from harness.errors import HarnessError
from harness.journal import read
from harness.records import SessionState
from leaderboard import eligible, entry, standard
from leaderboard.check import check
from leaderboard.listing import UNEXPECTED
from leaderboard.outcome import outcome
from leaderboard.scan import described


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("standard")
    publishing.packed(root)
    return root


def journal(root: Path) -> Lines:
    return lines_of(read(root / "session0" / "journal.jsonl")[0])


def reasons(lines: Lines) -> str:
    return "; ".join(eligible.reasons(bundled(lines), publishing.boards()))


def agent(name: str, **options: Any) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        opened(lines)["config"]["agent"] = {"name": name, "options": options}

    return change


def instructions(lines: Lines) -> None:
    opened(lines).update(program="Win.", program_sha256=hashlib.sha256(b"Win.").hexdigest())


def recorded(lines: Lines) -> None:
    of = {"status": "ok", "val_bpb": 1.9, "delta_sigma": 1.0, "kept": True, "rerun": True}
    data(lines, "proposal")["recorded"] = of


def stopped(reason: str) -> Callable[[Lines], None]:
    return lambda lines: data(lines, "stopped").update(reason=reason)


def key(**values: Any) -> Callable[[Lines], None]:
    return lambda lines: opened(lines)["key"].update(values)


def resumed_with(torch: str) -> Callable[[Lines], None]:
    line = {"type": "resumed", "data": {"reason": "resumed", "torch": torch}}
    return lambda lines: lines.insert(2, {"time": lines[1]["time"], **line})


REFUSED: dict[str, tuple[Callable[[Lines], Any], str]] = {
    "another agent": (agent("claude_code"), "rows are of llm, random, tpe, cmaes, noop only"),
    "no agent": (agent([]), "rows are of llm"),
    "options": (agent("tpe", startup_trials=6, block=5, candidates=24), "agent=tpe with other options"),
    "types of options": (agent("tpe", startup_trials=True, block=5, candidates=24), "agent=tpe with other options"),
    "instructions": (instructions, "not program.md"),
    "experiments": (config("session", experiments=7), "session.experiments is 7"),
    "early stop": (config("session", early_stop=False), "session.early_stop is False"),
    "more rules": (config("session", luck=1), "session.luck is 1"),
    "threads": (config("backend", threads=1), "backend.threads is set"),
    "dtype": (config("backend", dtype="float32"), "backend.dtype is set"),
    "recorded": (recorded, "repeats one of another session"),
    "a model's name": (config("llm", model="openai/best"), "its llm group names a model"),
    "a model's facts": (lambda x: opened(x).update(researcher={"model": "openai/best"}), "says it asked a model"),
    "versions": (lambda x: opened(x).update(versions=["2.13.0"]), "torch None"),
    "another optuna": (
        lambda x: opened(x)["packages"].update(optuna="9.9"),
        "agent=random made with 'optuna 9.9': only what",
    ),
    "another numpy later": (
        lambda x: x.insert(2, {"time": x[1]["time"], "type": "resumed", "data": {"reason": "x", "packages": {}}}),
        "made with 'numpy None'",
    ),
    "another torch later": (resumed_with("2.12.0"), "torch 2.12.0: install torch=="),
    "low score": (lambda x: finished(x, "baseline-000").update(bpb=0.01), "a score of 0.01 bits per byte"),
    "high score": (lambda x: finished(x, "baseline-000").update(bpb=9.0), "a score of 9 bits per byte"),
    "no seconds": (lambda x: finished(x, "baseline-000").update(train_seconds="inf"), "a run's seconds: a number that"),
    "negative": (lambda x: data(x, "baseline").update(sigma_bpb=-1.0), "sigma: a number that no session has"),
    "text": (key(data_sha256="0" * 64), "its key is no official board"),
    "stock script": (key(stock_sha256="0" * 64), "its key is no official board: stock_sha256 is '0000"),
    "protocol 2.0": (key(protocol=2.0), "its key is no official board"),
    "more of a key": (key(luck=1), "its key is no official board"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_standard_session_is_refused(root: Path, case: str) -> None:
    change, expected = REFUSED[case]
    lines = journal(root)
    assert reasons(lines) == ""
    change(lines)
    assert expected in reasons(lines)


@pytest.mark.parametrize(
    "change",
    [
        config("session", max_hours=9.0, max_cost_usd=5.0, max_llm_tokens=10**6, root="elsewhere", name="mine"),
        agent("tpe", startup_trials=1, block=5, candidates=24),
        agent("cmaes", sigma=0.1, population=None),
        agent("noop"),
        # Refused, it could be run again: a seed on which much is spent for nothing would never be shown.
        stopped("session.max_hours=1 was reached"),
        stopped("session.max_cost_usd=1: $1 are spent"),
        stopped("session.max_llm_tokens=9: 9 are used"),
    ],
)
def test_what_is_free(root: Path, change: Callable[[Lines], None]) -> None:
    lines = journal(root)
    change(lines)
    assert reasons(lines) == ""


@pytest.mark.parametrize("change", [lambda _: None, stopped("session.max_hours=99 was reached")])
def test_a_limit_in_hours_sets_no_session_apart(root: Path, change: Callable[[Lines], None]) -> None:
    """Or seeds could begin at 0 again under every new limit, and what one ended would be missing in its row."""
    lines = journal(root)
    change(lines)
    before = outcome(bundled(lines).records)
    opened(lines)["config"]["session"]["max_hours"] = 99.0
    whole = bundled(lines)
    made = entry.Entry(1, whole.sha256, 1, None, entry.Submitter("Ann", None), "2026-01-02", "")
    after = described("x", made, whole).outcome
    assert outcome(whole.records).conditions["max_hours"] == 99.0
    assert after is not None and after.conditions == before.conditions


@pytest.mark.parametrize(
    ("run_ids", "refused"),
    [
        (["confirm_candidate-001"], False),  # power cuts happen
        (["confirm_candidate-001", "confirm_baseline-002"], False),
        (["experiment-000"] * 3, False),
        (["confirm_candidate-001"] * 2, True),
    ],
)
def test_a_confirmation_run_may_be_cut_off_once(root: Path, run_ids: list[str], refused: bool) -> None:
    lines = journal(root)
    for run_id in run_ids:
        started = [line["type"] == "run_started" and line["data"]["run_id"] == run_id for line in lines].index(True)
        resumed = {"time": lines[started]["time"], "type": "resumed", "data": {"reason": "killed"}}
        lines[started:started] = [copy.deepcopy(lines[started]), resumed]
    expected = "confirm_candidate-001 was cut off 2 times and made again: a confirmation run may be once"
    assert (expected in reasons(lines)) is refused and (refused or reasons(lines) == "")


def test_a_session_of_another_version_is_judged_by_its_own_rules(root: Path) -> None:
    lines = journal(root)
    key(protocol=1)(lines)
    config("session", experiments=7)(lines)
    older = replace(publishing.boards()[0], key={**publishing.boards()[0].key, "protocol": 1})
    assert eligible.reasons(bundled(lines), [older]) == () and not eligible.is_current(bundled(lines))


def test_a_session_that_a_limit_ended_at_once_is_none(root: Path) -> None:
    lines = [line for line in journal(root) if line["data"].get("role") not in ("experiment", "rerun")]
    lines = [line for line in lines if line["type"] not in ("proposal", "decision")]
    config("session", max_hours=0.01)(lines)
    at = next(place for place, line in enumerate(lines) if line["data"].get("role") == "confirm_baseline")
    reason = {"reason": "session.max_hours=0.01 was reached"}
    lines.insert(at, {"time": lines[at]["time"], "type": "stopped", "data": reason})
    assert "a limit ended it before its first experiment" in reasons(lines)


def test_the_yardstick_is_tpe_with_its_own_options() -> None:
    def is_tpe(name: str, **options: Any) -> bool:
        return standard.is_tpe(SessionState(config={"agent": {"name": name, "options": options}}))

    assert is_tpe("tpe") and is_tpe("tpe", **compose(["agent=tpe"]).agent.options)
    assert not (is_tpe("tpe", candidates=1) or is_tpe("tpe", luck=1) or is_tpe("random"))
    assert not standard.is_tpe(SessionState(config={"agent": {"name": "tpe", "options": []}}))


STRANGE: tuple[Any, ...] = ([], {"a": [3]}, "x")


@pytest.mark.parametrize("values", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_whatever_a_journal_holds_the_check_says_a_line(root: Path, tmp_path: Path, values: int) -> None:
    """Every field of the opening record as another thing than it is: a problem or none, never an end of the check."""
    good = opened(journal(root))
    fields = [(name,) for name in good] + [("config", name) for name in good["config"]]
    fields += [("device", name) for name in good["device"]]
    strange = [(field, STRANGE[(at + turn) % 3]) for at, field in enumerate(fields) for turn in range(values)]
    num_checked = 0
    for number, (field, value) in enumerate(strange):
        lines = journal(root)
        place = opened(lines)
        for name in field[:-1]:
            place = place[name]
        place[field[-1]] = value
        folder = tmp_path / f"{number}"
        folder.mkdir()
        try:
            path = publishing.repacked(lines, tmp_path / f"{number}.bundle.tar")
        except (HarnessError, *UNEXPECTED):
            continue  # no bundle can be made of it
        content = path.read_bytes()
        name = f"demo-random-s0-{bundled(lines).head[:8]}"
        made = entry.Entry(
            1, hashlib.sha256(content).hexdigest(), len(content), None, entry.Submitter("Eve", None), "2026-01-02", ""
        )
        (folder / f"{name}.json").write_bytes(entry.dump(made))
        (folder / f"{name}.bundle.tar").write_bytes(content)
        found = check(folder, cache=tmp_path, reproducers=frozenset(), boards=publishing.boards()).problems
        assert all(str(problem).isprintable() and problem.where.startswith("demo-") for problem in found)
        num_checked += 1
    assert num_checked > len(strange) / 2
