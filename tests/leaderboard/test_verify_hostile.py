"""Verification survives what strangers send, and takes no endless time over it."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import pytest
from doctored import Lines, bundled, data, doctored, lines_of
from rich.console import Console
from verified_sessions import said, script

from harness import edits, fold
from harness.errors import HarnessError
from harness.journal import Record
from harness.records import Edit
from leaderboard import decisions, show
from leaderboard.aggregate import aggregate
from leaderboard.outcome import outcome
from leaderboard.verify import examine


def repeated(kind: str, count: int, **values: Any) -> Callable[[Lines], None]:
    """So many lines of a kind behind the first one; `{}` in a text is their number."""

    def change(lines: Lines) -> None:
        made = [{name: v.format(i) if isinstance(v, str) else v for name, v in values.items()} for i in range(count)]
        lines[1:1] = [{"time": lines[0]["time"], "type": kind, "data": {**each}} for each in made]

    return change


def test_what_a_state_copies_with_every_record_has_an_end(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file of many lines takes no time that grows with their square, and nothing that matters is lost."""
    for limit in ("MAX_ATTEMPTS", "MAX_INCIDENTS"):
        monkeypatch.setattr(fold, limit, 300)
    noted = {"run_id": "baseline-000", "family": "leak"}
    many = [f"reason {number}" for number in range(500)]
    state = doctored(records, repeated("resumed", 3, reason="x", unranked=many)).state
    assert len(state.unranked) == fold.MAX_REASONS
    state = doctored(records, repeated("integrity", fold.MAX_ATTEMPTS + 5, evidence="{}", **noted)).state
    assert len(state.attempts) == fold.MAX_ATTEMPTS
    state = doctored(records, repeated("integrity", 5, evidence="the same", **noted)).state
    assert len(state.attempts) == 1
    state = doctored(records, repeated("incident", fold.MAX_INCIDENTS + 5, text="{}")).state
    assert len(state.incidents) == fold.MAX_INCIDENTS


def test_more_experiments_than_a_session_has_are_refused(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "MAX_OF_A_KIND", 300)

    def change(lines: Lines) -> None:
        first = next(place for place, line in enumerate(lines) if line["type"] == "proposal")
        told = {**lines[first]["data"], "source": None, "edit": None, "refused": "x"}
        lines[first:] = [{**lines[first], "data": {**told, "index": index}} for index in range(fold.MAX_OF_A_KIND + 1)]

    with pytest.raises(HarnessError, match="more than 300 of a kind"):
        doctored(records, change)


def test_edits_are_measured_before_they_are_applied(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of thousands of blocks fit into a line, and each one searches the whole script."""
    monkeypatch.setattr(decisions, "MAX_SEARCHED_CHARACTERS", 10**8)
    blocks = [["EMBED_LR = ", "EMBED_LR = "]] * 20_000
    many = examine(doctored(records, lambda x: data(x, "proposal")["edit"].update(blocks=blocks)))
    assert "experiment 1: the edits up to here have more blocks" in said(many)
    applied: list[Edit] = []

    def edited(edit: Edit, best_source: str) -> str:
        applied.append(edit)
        return edits.edited(edit, best_source)

    monkeypatch.setattr(decisions, "edited", edited)
    endless = examine(doctored(records, script(lambda source: source + "#" * (1 << 20))))
    assert "experiment 3: a script of more than" in said(endless) and len(applied) == 2


HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1e308, -1e308, 5e-324, "", "x", "nan", "-inf", "\ud800", "<script>", [], [[]], {},
    {"a": 1},
)  # fmt: skip


def leaves(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((value, key), *leaves(item))]


def survives(records: list[Record], rounds: range) -> None:
    """Any value anywhere: a refusal or findings, never another exception."""
    for seed in rounds:
        rng = random.Random(seed)
        lines = lines_of(records)
        for _ in range(rng.choice((1, 1, 3))):
            line = rng.choice(lines)
            container, key = rng.choice([*leaves(line["data"]), (line, "time"), (line, "type"), (line, "data")])
            container[key] = rng.choice(HOSTILE_VALUES)
        try:
            result = examine(bundled(lines))
            for _, found in result.findings:
                assert all(f.text.isprintable() and f.where.isprintable() for f in found)
            if result.consistent:
                shown = io.StringIO()
                show.boards(aggregate([outcome(result.bundle.records)]), Console(file=shown, width=200))
                assert shown.getvalue().replace("\n", "").isprintable()
        except HarnessError as error:
            assert "\n" not in str(error)


def test_hostile_values_are_survived(records: list[Record], metered: list[Record]) -> None:
    survives(records, range(60))
    survives(metered, range(60))


@pytest.mark.slow
def test_many_hostile_values_are_survived(records: list[Record], metered: list[Record]) -> None:
    survives(records, range(60, 4000))
    survives(metered, range(60, 4000))
