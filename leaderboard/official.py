"""The official boards: the keys that the maintainers listed. Every other key is somebody's own.

A key has the hashes of stock script and text. On a text that is easy to learn, or from a stock script that was made
bad, anybody gains much; so a board is published only where those two are the ones that everybody gets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.codec import from_json
from harness.errors import ConfigError, JournalError
from harness.journal import canonical
from harness.views import text
from leaderboard import entry

_MAX_BYTES = 256 << 10
_KEY = {"protocol", "task", "reference_tokens", "stock_sha256", "data_sha256", "tokenizer_sha256", "clock"}


@dataclass(frozen=True)
class Official:
    """A board that the maintainers opened."""

    name: str
    key: dict[str, Any]  # exactly as session_open has it


def read(path: Path) -> tuple[Official, ...]:
    """The list in the file at `path`. Raises ConfigError for anything but objects with a name and a whole key."""
    content = entry.read_capped(path, _MAX_BYTES)
    try:
        return _parsed(json.loads(content))
    except JournalError as error:
        why = str(error)
    except (ValueError, RecursionError):
        why = "not JSON"
    raise ConfigError(f"{path}: {text.line(why, 160)}; expected the list of official keys")


def _parsed(values: Any) -> tuple[Official, ...]:
    if not isinstance(values, list):
        raise JournalError("not a list")
    found = tuple(from_json(Official, value, f"[{number}]") for number, value in enumerate(values))
    for one in found:
        if set(one.key) != _KEY:
            raise JournalError(f"{one.name!a}: a key has {', '.join(sorted(_KEY))}")
    if len({canonical(one.key) for one in found}) < len(found):
        raise JournalError("a key is there twice")
    return found


def lists(boards: Iterable[Official], key: Mapping[str, Any]) -> bool:
    """Whether `key` is one of them, types included: a protocol of True or 2.0 is not 1 or 2."""
    wanted = canonical(dict(key))
    return any(canonical(board.key) == wanted for board in boards)


def refusal(boards: Sequence[Official], key: Mapping[str, Any]) -> str:
    """Why a session of this key is not published: what the board of its task has otherwise."""
    task = text.line(repr(key.get("task")), 40)
    mine = [board.key for board in boards if board.key["task"] == key.get("task")]
    if not mine:
        there = ", ".join(dict.fromkeys(text.line(str(board.key["task"]), 40) for board in boards))
        return f"its key is no official board: task {task} has none; there are {there or 'none yet'}"
    nearest = min(mine, key=lambda known: len(_differences(known, key)))
    return f"its key is no official board: {'; '.join(_differences(nearest, key))}"


def _differences(board: Mapping[str, Any], key: Mapping[str, Any]) -> list[str]:
    """In words, by field, what `key` has and what the board has; the clock first, for that can be chosen."""
    names = sorted({*board, *key}, key=lambda name: (name != "clock", name))
    return [
        f"{text.line(name, 20)} is {_value(key.get(name))}, the board's {_value(board.get(name))}"
        + " (`backend=cpu` has it)" * (name == "clock" and board.get(name) == "metered")
        for name in names
        if (name in key) != (name in board) or canonical(key.get(name)) != canonical(board.get(name))
    ]


def _value(value: Any) -> str:
    return text.line(repr(value)[:14], 14)
