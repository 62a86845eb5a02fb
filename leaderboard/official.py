"""The official boards: the keys that the maintainers listed. Every other key is somebody's own.

A key has the hashes of stock script and text. On a text that is easy to learn, or from a stock script that was made
bad, anybody gains much; so a board is published only where those two are the ones that everybody gets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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


def refusal(key: Mapping[str, Any]) -> str:
    """Why a session of this key is not published."""
    stock, data = (text.line(str(key.get(name)), 12) for name in ("stock_sha256", "data_sha256"))
    return f"its key is no official board: stock script {stock}, text {data}; leaderboard/official.json has them"
