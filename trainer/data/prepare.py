"""Build a data set once: `python -I -m trainer.data.prepare REQUEST.json`. Messages and files: docs/architecture.md."""

from __future__ import annotations

import errno
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken

from trainer.data import tokenizer, windows
from trainer.data.corpus import Corpus, open_corpus
from trainer.data.overlap import WIDTH, runtime_overlap
from trainer.data.source import DataError, Document, Report
from trainer.data.split import SPLITS
from trainer.data.storage import (
    canonical_hash,
    file_sha256,
    folder_sha256,
    locked,
    read_json,
    read_meta,
    replace_json,
    whole_folder,
    write_meta,
)

FORMAT_VERSION = 1
MAX_RUNTIME_OVERLAP = 0.001
_SECONDS_BETWEEN_EVENTS = 0.1


@dataclass(frozen=True)
class Shape:
    """What a task asks of its data."""

    vocab_size: int
    sequence_length: int
    num_eval_windows: int
    num_decoy_tokens: int

    @classmethod
    def read(cls, task: Mapping[str, Any]) -> Shape:
        """Raises DataError for a missing or non-positive number. Other keys are ignored."""
        values = {}
        for name in cls.__dataclass_fields__:
            value = task.get(name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise DataError(f"task.{name}={value!r}: expected a positive integer")
            values[name] = value
        return cls(**values)


def prepare(request: Mapping[str, Any], report: Report) -> tuple[Path, dict[str, Any]]:
    """The folder of the requested data set and its meta.json, built if it is missing or damaged.

    Raises:
        DataError: the request is wrong, or the data cannot be fetched or trusted.
    """
    missing = [name for name in ("data", "task", "home", "runtime_paths") if name not in request]
    if missing or "source" not in request["data"]:
        raise DataError(f"the request lacks {', '.join(missing) or 'data.source'}: see docs/architecture.md")
    home = Path(request["home"])
    shape = Shape.read(request["task"])
    runtime_paths = [Path(path) for path in request["runtime_paths"]]
    corpus = open_corpus(request["data"], home, report)
    folder = home / "data" / canonical_hash([FORMAT_VERSION, corpus.key, corpus.text_sha256, vars(shape)])[:20]
    with locked(folder):
        meta = read_meta(folder)
        if meta is not None and meta["data_sha256"] == folder_sha256(folder):
            if meta["runtime_sha256"] != runtime_fingerprint(runtime_paths):
                meta |= _check_runtime(corpus, runtime_paths, report)
                write_meta(folder, meta)
            return folder, meta
        checked = _check_runtime(corpus, runtime_paths, report)
        with whole_folder(folder) as building:
            meta = _build(building, corpus, shape, report) | {"source": request["data"]["source"]} | checked
            write_meta(building, meta)
    return folder, meta


def runtime_fingerprint(runtime_paths: Iterable[Path]) -> str:
    """Changes when a package is installed, updated or removed: those show in the names at the top of site-packages."""
    return canonical_hash([[str(path), _names_at_the_top(path)] for path in runtime_paths])


def _names_at_the_top(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir() if entry.name != "__pycache__")
    except (NotADirectoryError, FileNotFoundError, PermissionError):  # less privileged code cannot read it either
        return []


def _check_runtime(corpus: Corpus, runtime_paths: Sequence[Path], report: Report) -> dict[str, Any]:
    """Measured once for a text and a runtime, whatever the vocabulary; unknown where there is nothing to look at."""
    fingerprint = runtime_fingerprint(runtime_paths)
    if not runtime_paths:
        return {"runtime_overlap": None, "runtime_sha256": fingerprint}
    cache = corpus.folder.with_name(f"{corpus.folder.name}.runtime.json")
    known = read_json(cache)
    if known is not None and known["runtime_sha256"] == fingerprint:
        return known
    held_out = (document.text for split in ("val", "test") for document in corpus.documents(split))
    given = (document.text for document in corpus.documents("train"))
    overlap = runtime_overlap(held_out, given, runtime_paths, report)
    if overlap.share > MAX_RUNTIME_OVERLAP:
        raise DataError(
            f"runtime_overlap={overlap.share:.4f}: so much of val and test text (shingles of {WIDTH} bytes, those of "
            f"train left out) lies in files that agents can read, expected at most {MAX_RUNTIME_OVERLAP}; take these "
            f"out of the text or out of the environment: {', '.join(overlap.files)}"
        )
    checked = {"runtime_overlap": overlap.share, "runtime_sha256": fingerprint}
    replace_json(cache, checked)
    return checked


def _build(folder: Path, corpus: Corpus, shape: Shape, report: Report) -> dict[str, Any]:
    documents = {split: corpus.documents(split) for split in SPLITS}
    encoding = tokenizer.train((each.text for each in documents["train"]), shape.vocab_size, report)
    tokenizer.save(encoding, folder / "tokenizer.json")
    lengths = tokenizer.token_bytes(encoding)
    np.save(folder / "token_bytes.npy", lengths)
    splits = _write_tokens(folder, documents, encoding, shape, report)
    return {
        "format_version": FORMAT_VERSION,
        "text_sha256": corpus.text_sha256,
        "tokenizer_sha256": file_sha256(folder / "tokenizer.json"),
        "data_sha256": folder_sha256(folder),
        **vars(shape),
        "bos_token": encoding.n_vocab - 1,
        "dtype": windows.token_dtype(shape.vocab_size).name,
        "splits": splits,
        "leak_rate": corpus.leak_rate,
        "split_by": corpus.split_by,
        "inputs": dict(corpus.inputs),
    }


def _write_tokens(
    folder: Path, documents: Mapping[str, Sequence[Document]], encoding: tiktoken.Encoding, shape: Shape, report: Report
) -> dict[str, Any]:
    """Write the token files; return what is in them (for val and test: in their windows)."""
    total_chars = sum(len(each.text) for group in documents.values() for each in group)
    encoder = windows.Encoder(encoding, total_chars, report)
    lengths = tokenizer.token_bytes(encoding)
    held_out = {split: windows.flat_tokens(encoder, documents[split]) for split in ("val", "test", "decoy")}
    kept = {"decoy": windows.decoy_tokens(held_out["decoy"], shape.num_decoy_tokens)}
    for split in ("val", "test"):
        kept[split] = windows.eval_windows(held_out[split], split, shape.num_eval_windows, shape.sequence_length)
    for split, tokens in kept.items():
        np.save(folder / f"{split}.npy", tokens)
    counts = {split: (int(lengths[tokens].sum()), tokens.size) for split, tokens in kept.items()}
    train_bytes = sum(len(each.text.encode()) for each in documents["train"])
    counts["train"] = (train_bytes, windows.write_train(encoder, documents["train"], folder))
    return {
        split: {"num_documents": len(documents[split]), "num_bytes": counts[split][0], "num_tokens": counts[split][1]}
        for split in SPLITS
    }


def throttled(emit: Callable[[Mapping[str, Any]], None], clock: Callable[[], float]) -> Report:
    """A Report that emits a progress event when a stage starts or ends, else at most ten a second."""
    last: tuple[str, float] = ("", 0.0)

    def report(stage: str, done: int, total: int | None, unit: str) -> None:
        nonlocal last
        now = clock()
        if stage != last[0] or done == total or now - last[1] >= _SECONDS_BETWEEN_EVENTS:
            last = (stage, now)
            emit({"event": "progress", "stage": stage, "done": done, "total": total, "unit": unit})

    return report


def _emit(event: Mapping[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:  # a write does not say where
        return "no space is left for the data: free some, or let BPBENCH_HOME be a folder elsewhere; nothing is lost"
    return str(error)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    try:
        if len(arguments) != 1:
            raise DataError("usage: python -I -m trainer.data.prepare REQUEST.json")
        request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        path, meta = prepare(request, throttled(_emit, time.monotonic))
    except (DataError, OSError, json.JSONDecodeError) as error:
        _emit({"event": "error", "message": " ".join(_words(error).split())})
        return 1
    except Exception as error:  # a file may hold what no reader of its kind expected
        traceback.print_exc()
        what = f"the text cannot be prepared ({type(error).__name__}: {error}): a file of it may be damaged"
        _emit({"event": "error", "message": " ".join(what.encode("ascii", "replace").decode().split())})
        return 1
    _emit({"event": "done", "path": str(path), "meta": meta})
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is the parent's to explain; nothing half-done is left
    sys.exit(main(sys.argv[1:]))
