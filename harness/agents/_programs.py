"""What coding agents are started with, and what they print: their own account of tokens and dollars. Untrusted text."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.llm.store import is_secret_name, looks_secret
from harness.records import Usage
from harness.views import text

# What is a secret whatever it is called: a password in an address, a header.
_HIDDEN = re.compile(
    r"://[^/@\s]+@|\bbearer\s+[\w.~+/=-]{8,}|authorization[\"']?\s*[:=]|\bsk-[\w-]{8,}"
    r"|api[-_]?key[\"']?\s*[:=]\s*[\"']?(?!(?-i:[A-Z][A-Z0-9_]*)[\"']?(?:\W|$))[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
_OPTION = re.compile(r"-{0,2}[\w.]+(?:[.-]\w+)*")  # a prompt has spaces
# A variable's name or its use, a path, a number.
_NO_SECRET = re.compile(r"\"?[A-Z][A-Z0-9_]*\"?|\$\{?\w+\}?|[~.]{0,2}/\S*|[\d_,]+")
_NO_SECRET_NAME = re.compile(
    r"tokeni[sz]er|token[_-]?(limit|budget)|max[\w.-]*tokens|key(bind|map|board)", re.IGNORECASE
)
_MAX_COUNT = 10**12
_TAIL_BYTES = 4 << 20
_SHORT_PATH = 60  # bytes; the operating system allows some 104 for the whole path of a socket


def environment(names: tuple[str, ...], home: Path, ours: Mapping[str, str]) -> dict[str, str]:
    """The program's whole environment: a fresh home, of ours only what is named, and what is set as NAME=VALUE.

    NAME|OTHER is NAME, with the value of the first of them that is set and not empty.
    """
    plain = {"PATH": ours.get("PATH", "/usr/local/bin:/usr/bin:/bin"), "LANG": "C.UTF-8", "TERM": "dumb"}
    given = {}
    for others in (entry.split("|") for entry in names if "=" not in entry):
        if value := next(filter(None, map(ours.get, others)), None):
            given[others[0]] = value
    fixed = dict(name.split("=", 1) for name in names if "=" in name)
    return {**plain, "HOME": str(home), "TMPDIR": str(home), **given, **fixed}


def check_environment(entries: Iterable[str]) -> None:
    """Raises ConfigError for a secret: the configuration goes into the journal, and from there to whoever reads it."""
    for entry in entries:
        name, _, value = entry.partition("=")
        if looks_secret(name, value) or _HIDDEN.search(value):
            raise ConfigError(
                f"agent.options.environment: {name}=... would be written into the session: export it and give its name"
            )


def check_arguments(parts: Sequence[str]) -> None:
    """As `check_environment`, of `--name VALUE` and `--name=VALUE` on the command line."""
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in parts)]
    pairs += [(name, value) for name, value in pairwise(parts) if name.startswith("-") and "=" not in name]
    what = next((f"the value of {text.line(name, 40)}" for name, value in pairs if _is_secret(name, value)), None)
    if what is None and any(map(_HIDDEN.search, parts)):
        what = "an argument"
    if what is not None:
        raise ConfigError(
            f"agent.options: {what} would be written into the session: export it, and name its variable in "
            "agent.options.environment"
        )


def _is_secret(name: str, value: str) -> bool:
    """Whether an option of that name holds a secret, and not where to find one."""
    if value.startswith(("--", "{")) or not _OPTION.fullmatch(name) or _NO_SECRET_NAME.search(name):
        return False
    return looks_secret(name, value) and not _NO_SECRET.fullmatch(value)


def missing_key(entries: Iterable[str], ours: Mapping[str, str]) -> str | None:
    """What to say where variables for keys are named and none of them is set; None: nothing is missing."""
    keys = [name for entry in entries if "=" not in entry for name in entry.split("|") if is_secret_name(name)]
    if not keys or any(ours.get(name) for name in keys):
        return None
    return (
        f"{' or '.join(keys)} is not set: export the key, or take its name out of agent.options.environment where "
        "none is needed"
    )


def socket_folder() -> Path:
    """A private folder whose path is short enough for a socket, wherever the session lies."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="bpbench-", dir=usual if len(os.fsencode(usual)) <= _SHORT_PATH else "/tmp"))


def output_of(log_path: Path) -> str:
    with contextlib.suppress(OSError), log_path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace")
    return ""


def found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ConfigError(f"agent.options.argv: no program '{program}' on the PATH: install it, or give its path")
    # It is started in a folder of its own. Not resolved: a venv's python stays a link.
    return str(Path(path).absolute())


def filled(part: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        part = part.replace("{" + name + "}", value)
    return part


def none(_output: str) -> Usage | None:
    """A program that tells nothing that we can read."""
    return None


def claude_code(output: str) -> Usage | None:
    """`claude --output-format stream-json`: the last `result` has the whole run's usage and dollars."""
    result = next((item for item in reversed(list(_lines(output))) if item.get("type") == "result"), None)
    if result is None:
        return None
    used = _mapping(result.get("usage"))
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    parts = [_count(used.get(name)) for name in names]
    cost = result.get("total_cost_usd")
    priced = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1e9
    known = [part for part in parts if part is not None]
    return Usage(
        prompt_tokens=sum(known) if known else None,
        completion_tokens=_count(used.get("output_tokens")),
        cost_usd=float(cost) if priced else None,
    )


def codex(output: str) -> Usage | None:
    """`codex exec --json`: each `turn.completed` has the usage of its turn; dollars are not told."""
    turns = [_mapping(item.get("usage")) for item in _lines(output) if item.get("type") == "turn.completed"]
    if not turns:
        return None
    prompts = [_count(turn.get("input_tokens")) for turn in turns]
    answers = [_count(turn.get("output_tokens")) for turn in turns]
    return Usage(
        prompt_tokens=None if None in prompts else sum(count for count in prompts if count is not None),
        completion_tokens=None if None in answers else sum(count for count in answers if count is not None),
    )


PARSERS: Mapping[str, Callable[[str], Usage | None]] = {"none": none, "claude_code": claude_code, "codex": codex}


def _lines(output: str) -> Iterator[dict[str, Any]]:
    for line in output.split("\n"):  # `splitlines` also breaks at U+2028, which may stand inside a JSON string
        if line.startswith("{"):
            try:
                item = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(item, dict):
                yield item


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT else None
