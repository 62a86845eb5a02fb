"""How much of the held-out text also lies in files that sandboxed code can read.

A shingle is WIDTH bytes of text with all white space removed: long enough that ordinary idioms and licence
one-liners do not count, short enough that a copied function does. One in eight, chosen by its own first bytes, stands
for the whole, the same on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.data.hashing import MAX_BYTES, U64, span_hashes
from trainer.data.source import Report

WIDTH = 160
_WHITE_SPACE = bytes(range(33))
_ANCHOR_WEIGHTS = (167, 13, 101)  # odd, so that every byte moves the high bits
_ANCHOR_LIMIT = 32  # of 256
_FILTER_BITS = 22
_SNIFF_BYTES = 4096
_BLOCK_BYTES = 8 << 20
# Compiled or packed: what they hold is there as text too, or cannot be read as text.
_BINARY_SUFFIXES = (".pyc", ".so", ".a", ".o", ".png", ".jpg", ".gz", ".npz", ".ttf", ".woff", ".woff2", ".zip", ".whl")


@dataclass(frozen=True)
class Overlap:
    """`share` of the held-out shingles found in the runtime; `files` with the most of these, worst first."""

    share: float
    num_shingles: int
    files: tuple[str, ...]


def sampled_shingles(text: bytes) -> U64:
    """Hashes of the sampled shingles of `text`, with repeats."""
    data = np.frombuffer(text.translate(None, _WHITE_SPACE), dtype=np.uint8)
    step = MAX_BYTES - WIDTH + 1
    parts = [_sample(data[start : start + MAX_BYTES]) for start in range(0, max(len(data) - WIDTH + 1, 0), step)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _sample(data: npt.NDArray[np.uint8]) -> U64:
    last = len(data) - WIDTH + 1
    mark = np.zeros(last, dtype=np.uint8)
    for offset, weight in enumerate(_ANCHOR_WEIGHTS):
        mark += data[offset : offset + last] * np.uint8(weight)
    starts = np.flatnonzero(mark < _ANCHOR_LIMIT)
    return span_hashes(data, starts, starts + WIDTH)


def runtime_overlap(
    held_out: Iterable[str], given: Iterable[str], runtime_paths: Iterable[Path], report: Report
) -> Overlap:
    """Share of held-out shingles that occur in a text file under `runtime_paths`. Unreadable files are skipped.

    Those that the training text `given` has too do not count: every run is handed them anyway. They are headers of
    licences above all, which any machine is full of.
    """
    parts = [sampled_shingles(text.encode()) for text in held_out]
    known, counts = np.unique(np.concatenate(parts or [np.empty(0, dtype=np.uint64)]), return_counts=True)
    if len(known) == 0:
        return Overlap(0.0, 0, ())
    total = int(counts.sum())
    table, new = _filter(known), np.ones(len(known), dtype=np.bool_)
    for _, blocks in _batches(("", text.encode()) for text in given):
        new[_places(b"\n".join(blocks), known, table)] = False
    known, counts = known[new], counts[new]
    table, found = _filter(known), np.zeros(len(known), dtype=np.bool_)
    guilty: list[tuple[int, str]] = []
    done = 0
    for names, blocks in _batches(_text_blocks(runtime_paths)):
        if len(_places(b"\n".join(blocks), known, table)):
            for name, block in zip(names, blocks, strict=True):
                hits = _places(block, known, table)
                found[hits] = True
                if len(hits):
                    guilty.append((-len(hits), name))
        done += sum(map(len, blocks))
        report("runtime overlap", done, None, "B")
    return Overlap(float(counts[found].sum()) / total, total, tuple(name for _, name in sorted(guilty)[:3]))


def _filter(known: U64) -> npt.NDArray[np.bool_]:
    """A one-hash Bloom filter: most hashes stop here."""
    table = np.zeros(1 << _FILTER_BITS, dtype=np.bool_)
    table[_filter_index(known)] = True
    return table


def _filter_index(hashes: U64) -> npt.NDArray[np.intp]:
    return (hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.intp)


def _places(text: bytes, known: U64, table: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Indices into the sorted `known` of the shingles that `text` shares."""
    hashes = sampled_shingles(text)
    hashes = hashes[table[_filter_index(hashes)]]
    if not len(hashes):
        return np.empty(0, dtype=np.intp)
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.unique(places[known[places] == hashes])


def _batches(blocks: Iterable[tuple[str, bytes]]) -> Iterator[tuple[list[str], list[bytes]]]:
    """Small files together: numpy pays per call, not per byte."""
    names: list[str] = []
    texts: list[bytes] = []
    size = 0
    for name, text in blocks:
        names.append(name)
        texts.append(text)
        size += len(text)
        if size >= MAX_BYTES:
            yield names, texts
            names, texts, size = [], [], 0
    if names:
        yield names, texts


def _text_blocks(roots: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Every file under `roots` whose first bytes hold no NUL, in blocks. Links to folders are not followed."""
    seen: set[str] = set()
    for root in roots:
        if root.is_file():
            yield from _read_text(str(root))
        for folder, subfolders, names in os.walk(root):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            for name in names:
                if not name.endswith(_BINARY_SUFFIXES):
                    yield from _read_text(f"{folder}/{name}")


def _read_text(path: str) -> Iterator[tuple[str, bytes]]:
    if not os.path.isfile(path):  # noqa: PTH113  # sockets, broken links; tens of thousands of files, and Path is slow
        return
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            block = file.read(_BLOCK_BYTES)
            if b"\0" in block[:_SNIFF_BYTES]:
                return
            while block:
                yield path, block
                block = file.read(_BLOCK_BYTES)
    except PermissionError:  # what we cannot read, less privileged code cannot either
        return
