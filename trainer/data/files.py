"""A user's own folder of .txt, .md, .jsonl (key `text`) and .parquet (column `text`) files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.data.source import DataError, Document, Report, cut, decode_text, read_options, unify_newlines
from trainer.data.storage import file_sha256

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
_DEFAULTS = {"path": None, "text_key": "text", "max_chars": 50_000}


def open_source(options: Mapping[str, Any], downloads: Path, report: Report) -> FilesSource:  # noqa: ARG001
    """Options: `path` of the folder, `text_key` of .jsonl and .parquet, `max_chars` after which a text is cut."""
    values = read_options(options, _DEFAULTS)
    path = values["path"]
    if not isinstance(path, str) or not Path(path).expanduser().is_dir():
        raise DataError(f"data.options.path={path!r}: expected a folder with {', '.join(SUFFIXES)} files")
    if values["max_chars"] < 1:
        raise DataError(f"data.options.max_chars={values['max_chars']}: expected a positive number")
    return FilesSource(Path(path).expanduser(), values["text_key"], values["max_chars"])


def _is_plain(name: str) -> bool:
    """Whether documents can be named by it: file systems also have names that are no UTF-8."""
    return name.encode("utf-8", "replace").decode() == name


class FilesSource:
    """Documents are named by their path inside the folder, with `:row` in files of many."""

    def __init__(self, folder: Path, text_key: str, max_chars: int) -> None:
        self._folder, self._text_key, self._max_chars = folder, text_key, max_chars
        self._paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        odd = next((path for path in self._paths if not _is_plain(path.relative_to(folder).as_posix())), None)
        if odd is not None:
            raise DataError(f"{str(odd)!a}: a name that is no text; rename the file, or take it out of the folder")
        if not self._paths:
            raise DataError(f"data.options.path={str(folder)!r} holds no {', '.join(SUFFIXES)} file")
        self.inputs = {path.relative_to(folder).as_posix(): file_sha256(path) for path in self._paths}

    def identity(self) -> dict[str, Any]:
        """By content: a changed file is a new text."""
        return {"files": self.inputs, "text_key": self._text_key, "max_chars": self._max_chars, "split_by": "document"}

    def documents(self) -> Iterator[Document]:
        for path in self._paths:
            name = path.relative_to(self._folder).as_posix()
            for identifier, text in self._texts(path, name):
                if text.strip():
                    yield from cut(Document(identifier, text), self._max_chars)

    def _texts(self, path: Path, name: str) -> Iterator[tuple[str, str]]:
        if path.suffix.lower() == ".parquet":
            for row, text in enumerate(parquet_texts(path, self._text_key)):
                yield f"{name}:{row:09d}", text
            return
        whole = decode_text(path.read_bytes())
        if whole is None:
            raise DataError(f"{path} is not UTF-8 text: convert it or take it out of the folder")
        if path.suffix.lower() != ".jsonl":
            yield name, whole
            return
        for row, line in enumerate(whole.split("\n")):
            if line.strip():
                yield f"{name}:{row:09d}", self._json_text(line, f"{path} line {row + 1}")

    def _json_text(self, line: str, where: str) -> str:
        try:
            text = json.loads(line)[self._text_key]
        except (json.JSONDecodeError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise DataError(f"{where}: expected a JSON object with a string under {self._text_key!r}")
        return clean_text(text, where)


def clean_text(text: str, where: str) -> str:
    """`text` with unified line ends.

    Raises:
        DataError: it holds a lone surrogate, which UTF-8 cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: the text holds a lone surrogate and is not valid Unicode: repair it") from None
    return unify_newlines(text)


def parquet_texts(path: Path, column: str) -> Iterator[str]:
    """The strings of a column; nulls are empty.

    Raises:
        DataError: the file is damaged or has no such column.
    """
    try:
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise DataError(
                    f"{path} has no column {column!r}: expected one of {', '.join(file.schema_arrow.names)}"
                )
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                for text in batch.column(0).to_pylist():
                    if not isinstance(text, str | None):
                        raise DataError(f"{path}: column {column!r} holds {type(text).__name__}, expected strings")
                    yield unify_newlines(text or "")
    except pa.ArrowException as error:
        raise DataError(f"{path} is no readable parquet file ({error}): remove it, run again") from error
