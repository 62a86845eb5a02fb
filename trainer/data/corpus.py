"""The text of a data config, split and checked: shared by every vocabulary size.

`$home/text/<key>/documents.parquet` has the columns id, split and text, sorted by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.data.neardup import leak_rate, shingles
from trainer.data.source import DataError, Document, Report, Source, load_source
from trainer.data.split import assign_splits, read_fractions
from trainer.data.storage import canonical_hash, folder_sha256, locked, read_meta, whole_folder, write_meta

FORMAT_VERSION = 1
MAX_LEAK_RATE = 0.001
_ROWS_PER_GROUP = 4096
_FILE = "documents.parquet"


@dataclass(frozen=True)
class Corpus:
    """A text cut into splits. `key` names what it was made from, `text_sha256` what came out."""

    key: str
    text_sha256: str
    leak_rate: float
    split_by: str  # "document", or "piece": trainer/data/split.py
    inputs: Mapping[str, str]  # sha256 of every file read
    folder: Path

    def documents(self, split: str) -> list[Document]:
        """The documents of `split`, sorted by id."""
        table = pq.read_table(self.folder / _FILE, filters=[("split", "==", split)])
        return [Document(*row) for row in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True)]


def open_corpus(data: Mapping[str, Any], home: Path, report: Report) -> Corpus:
    """The corpus of a data config, built on first use. Thread- and process-safe: one builds, the others wait.

    Raises:
        DataError: a wrong config, text that cannot be fetched, another hash than the pinned one, or leaking splits.
    """
    options = dict(data.get("options") or {})
    fractions = read_fractions(options.pop("fractions", None))
    source = load_source(str(data["source"]), options, home / "downloads" / str(data["source"]), report)
    key = canonical_hash([FORMAT_VERSION, data["source"], dict(source.identity()), fractions])[:20]
    folder = home / "text" / key
    with locked(folder):
        meta = read_meta(folder)
        if meta is None or meta["files_sha256"] != folder_sha256(folder):
            meta = _build(folder, source, fractions, data.get("text_sha256"), report)
    _check_pin(meta["text_sha256"], data)
    return Corpus(key, meta["text_sha256"], meta["leak_rate"], meta.get("split_by", "document"), meta["inputs"], folder)


def _check_pin(text_sha256: str, data: Mapping[str, Any]) -> None:
    pinned = data.get("text_sha256")
    if pinned is not None and pinned != text_sha256:
        raise DataError(
            f"data.text_sha256={pinned} is pinned, but the text has {text_sha256}: "
            "the source or its options changed; use the pinned ones, or set data.text_sha256=null for your own corpus"
        )


def text_hash(documents: Iterable[Document]) -> str:
    """sha256 over ids and texts, each preceded by its length."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.id.encode(), document.text.encode()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def _collect(source: Source, report: Report) -> list[Document]:
    documents = []
    num_bytes = 0
    for document in source.documents():
        documents.append(document)
        num_bytes += len(document.text)
        report("read", num_bytes, None, "B")
    documents.sort(key=lambda document: document.id)
    for before, after in pairwise(documents):
        if before.id == after.id:
            raise DataError(f"document {after.id!r} occurs twice in the source: ids must be unique")
    if not documents:
        raise DataError("the source has no documents: check data.options")
    return documents


def _build(
    folder: Path, source: Source, fractions: Mapping[str, float], pinned: str | None, report: Report
) -> dict[str, Any]:
    documents = _collect(source, report)
    text_sha256 = text_hash(documents)
    _check_pin(text_sha256, {"text_sha256": pinned})
    sets = [shingles(document.text) for document in documents]
    splits = assign_splits(documents, sets, fractions, report)
    held_out = [each for each, split in zip(sets, splits.names, strict=True) if split in ("val", "test")]
    train = [each for each, split in zip(sets, splits.names, strict=True) if split == "train"]
    leaked = leak_rate(held_out, train, report)
    if leaked > MAX_LEAK_RATE:
        raise DataError(
            f"leak_rate={leaked:.4f}: that share of val and test documents has a near duplicate in train, "
            f"expected at most {MAX_LEAK_RATE}; remove copies from the text"
        )
    with whole_folder(folder) as building:
        _write(building / _FILE, documents, splits.names)
        meta = {
            "format_version": FORMAT_VERSION,
            "text_sha256": text_sha256,
            "leak_rate": leaked,
            "split_by": splits.by,
            "inputs": dict(source.inputs),
            "files_sha256": folder_sha256(building),
        }
        write_meta(building, meta)
    return meta


def _write(path: Path, documents: Sequence[Document], splits: Sequence[str]) -> None:
    schema = pa.schema([("id", pa.string()), ("split", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(documents), _ROWS_PER_GROUP):
            batch = documents[start : start + _ROWS_PER_GROUP]
            columns = [[d.id for d in batch], splits[start : start + _ROWS_PER_GROUP], [d.text for d in batch]]
            writer.write_table(pa.table(columns, schema=schema))
