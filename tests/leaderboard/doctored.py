"""Journals that were changed and chained again: what somebody writes who knows the format."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.fold import fold
from harness.journal import GENESIS, Record, canonical, parse
from leaderboard.bundle import Bundle, content

Line = dict[str, Any]  # time, type, data
Lines = list[Line]


def lines_of(records: Sequence[Record]) -> Lines:
    return [{"time": r.time, "type": r.type, "data": copy.deepcopy(r.data)} for r in records]


def chained(lines: Lines) -> bytes:
    """A journal of `lines` with an unbroken chain."""
    prev, journal = GENESIS, []
    for seq, line in enumerate(lines):
        body = {"seq": seq, **line, "prev": prev}
        prev = hashlib.sha256(canonical(body)).hexdigest()
        journal.append(canonical({**body, "hash": prev}) + b"\n")
    return b"".join(journal)


def bundled(lines: Lines) -> Bundle:
    """What `bundle.read` gives of a bundle of `lines`. Raises HarnessError."""
    journal = chained(lines)
    records, _ = parse(journal, Path("journal.jsonl"))
    content(journal, records)
    return Bundle(tuple(records), fold(records), "0" * 64)


def doctored(records: Sequence[Record], change: Callable[[Lines], object]) -> Bundle:
    lines = lines_of(records)
    change(lines)
    return bundled(lines)


def data(lines: Lines, kind: str, number: int = 0) -> dict[str, Any]:
    """The data of the record of type `kind` with this number among its kind."""
    found: dict[str, Any] = [line["data"] for line in lines if line["type"] == kind][number]
    return found


def finished(lines: Lines, run_id: str) -> dict[str, Any]:
    """The result of a run."""
    found: dict[str, Any] = next(
        line["data"]["result"] for line in lines if line["type"] == "run_finished" and line["data"]["run_id"] == run_id
    )
    return found
