"""What a data source is. The folder is the registry: `source: NAME` in a YAML under conf/data is the file NAME.py here.

Such a file has one function, `open_source(options, downloads, report) -> Source`. To add a source, add the file.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Report = Callable[[str, int, int | None, str], None]  # stage, done, total (None: unknown), unit


class DataError(Exception):
    """Data cannot be fetched, prepared or trusted. One line: what is wrong, what was expected, what to do."""


@dataclass(frozen=True)
class Document:
    """One text with a name that stays the same on every machine."""

    id: str
    text: str
    parent: str | None = None  # the id of the longer text that this is a piece of


class Source(Protocol):
    """Where documents come from."""

    @property
    def inputs(self) -> Mapping[str, str]:
        """sha256 of every file read, by name. Complete once `documents` is exhausted."""

    def identity(self) -> Mapping[str, Any]:
        """All that decides the text, as JSON values, without fetching it: the cache key."""

    def documents(self) -> Iterator[Document]:
        """Fetch what is missing, then yield every document with a unique id.

        Raises:
            DataError: when something is missing, damaged or unreachable.
        """


def available_sources() -> list[str]:
    """Names of the sources in this folder."""
    stems = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return sorted(stem for stem in stems if stem != "__init__" and hasattr(_module(stem), "open_source"))


def load_source(name: str, options: Mapping[str, Any], downloads: Path, report: Report) -> Source:
    """The source in the file `name`.py, which keeps what it fetches in `downloads`.

    Raises:
        DataError: unknown source or option.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not (Path(__file__).parent / f"{name}.py").is_file():
        raise DataError(f"data.source={name!r} does not exist: expected one of {', '.join(available_sources())}")
    module = _module(name)
    if not hasattr(module, "open_source"):
        raise DataError(f"data.source={name!r} is no source: expected one of {', '.join(available_sources())}")
    source: Source = module.open_source(options, downloads, report)
    return source


def read_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` overridden by `options`. A default also fixes the type; None accepts anything.

    Raises:
        DataError: unknown key or wrong type.
    """
    for key, value in options.items():
        if key not in defaults:
            raise DataError(
                f"data.options.{key} is unknown: expected one of {', '.join(sorted(defaults)) or 'nothing'}"
            )
        default = defaults[key]
        if default is not None and (not isinstance(value, type(default)) or isinstance(value, bool)):
            raise DataError(f"data.options.{key}={value!r}: expected {type(default).__name__}, such as {default!r}")
    return {**defaults, **options}


def decode_text(data: bytes) -> str | None:
    """UTF-8 text with `\\n` line ends and no byte order mark, or None if `data` is not UTF-8 text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else unify_newlines(text)


def unify_newlines(text: str) -> str:
    """`text` with `\\r\\n` and lone `\\r` replaced by `\\n`."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def cut(document: Document, max_chars: int) -> Iterator[Document]:
    """Pieces of at most `max_chars` characters, cut at line ends where there are any; the id gets `#0001` and so on.

    Raises:
        ValueError: if `max_chars` is not positive.
    """
    if max_chars <= 0:
        raise ValueError(f"max_chars={max_chars}: expected a positive number")
    text = document.text
    if len(text) <= max_chars:
        yield document
        return
    start = number = 0
    while start < len(text):
        end = start + max_chars
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield Document(f"{document.id}#{number:04d}", text[start:end], document.id)
        start, number = end, number + 1


def _module(name: str) -> Any:
    return importlib.import_module(f"trainer.data.{name}")
