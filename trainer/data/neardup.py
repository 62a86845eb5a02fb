"""Near-duplicate documents: Jaccard similarity of their sets of word 5-grams, at least 0.7.

Candidates come from MinHash with banded LSH (Broder 1997; Leskovec, Rajaraman, Ullman: Mining of Massive Datasets,
chapter 3), by datasketch; each is then verified with the exact similarity. 32 bands of 4 rows miss a pair at 0.7 once
in 6,600 times, and the measurement of what was missed (`leak_rate`) uses no sketch at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.data.hashing import MAX_BYTES, mix, span_hashes
from trainer.data.source import Report

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Shingles = npt.NDArray[np.uint32]

THRESHOLD = 0.7
WORDS = 5
BANDS, ROWS = 32, 4
_BATCH = 512  # training documents compared at a time

_WORD_BYTE = np.zeros(256, dtype=np.bool_)
_WORD_BYTE[[byte for byte in range(256) if byte >= 0x80 or chr(byte).isalnum() or byte == ord("_")]] = True
_WEIGHTS = mix(np.arange(1, WORDS + 1, dtype=np.uint64)) | np.uint64(1)


def shingles(text: str) -> Shingles:
    """Sorted unique 32-bit hashes of the word 5-grams of `text`; a shorter text is one shingle of all its words."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    parts = [_words(data[start : start + MAX_BYTES]) for start in range(0, max(len(data), 1), MAX_BYTES)]
    words = np.concatenate(parts)
    width = min(WORDS, max(len(words), 1))
    if len(words) == 0:
        words = mix(np.array([len(data)], dtype=np.uint64))
    count = len(words) - width + 1
    grams = np.zeros(count, dtype=np.uint64)
    for offset in range(width):
        grams += words[offset : offset + count] * _WEIGHTS[offset]
    return np.unique((mix(grams) >> np.uint64(32)).astype(np.uint32))


def _words(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    inside = np.zeros(len(data) + 2, dtype=np.int8)
    inside[1:-1] = _WORD_BYTE[data]
    edges = np.diff(inside)
    return span_hashes(data, np.flatnonzero(edges == 1), np.flatnonzero(edges == -1))


def jaccard(first: Shingles, second: Shingles) -> float:
    """Exact Jaccard similarity of two sorted unique arrays."""
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


def cluster(documents: Sequence[Shingles], report: Report) -> list[int]:
    """For each document the index of the first document of its cluster.

    Clusters are the connected components of "Jaccard >= 0.7".
    """
    parent = list(range(len(documents)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    # Imported here: it brings half of scipy, and a text that is ready needs none of it.
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    permutations = MinHash(num_perm=BANDS * ROWS, seed=1, scheme="affine32").permutations
    for index, own in enumerate(documents):
        sketch = MinHash(num_perm=BANDS * ROWS, hashfunc=int, permutations=permutations, scheme="affine32")
        sketch.update_batch(own.tolist())
        for other in sorted(lsh.query(sketch)):
            mine, theirs = root(index), root(other)
            if mine != theirs and jaccard(own, documents[other]) >= THRESHOLD:
                parent[max(mine, theirs)] = min(mine, theirs)
        lsh.insert(index, sketch)
        report("dedup", index + 1, len(documents), "documents")
    return [root(index) for index in range(len(documents))]


def leak_rate(held_out: Sequence[Shingles], train: Sequence[Shingles], report: Report) -> float:
    """Share of the held-out documents with a training document of Jaccard >= 0.7.

    Exact: every held-out document is compared with every training document, through a sparse product that counts
    common shingles.
    """
    from scipy.sparse import csr_matrix

    if not held_out:
        return 0.0
    known, columns = np.unique(np.concatenate(held_out), return_inverse=True)
    rows = np.repeat(np.arange(len(held_out)), [len(each) for each in held_out])
    ours = csr_matrix((np.ones(len(rows), dtype=np.int32), (rows, columns)), shape=(len(held_out), len(known)))
    sizes = np.array([len(each) for each in held_out])
    leaked = np.zeros(len(held_out), dtype=np.bool_)
    done = 0
    for batch in _batches(train):
        common = (ours @ _incidence(batch, known).T).tocoo()
        union = sizes[common.row] + np.array([len(each) for each in batch])[common.col] - common.data
        leaked[common.row[common.data >= THRESHOLD * union]] = True
        done += len(batch)
        report("leak check", done, len(train), "documents")
    return float(leaked.mean())


def _batches(documents: Sequence[Shingles]) -> Iterator[Sequence[Shingles]]:
    for start in range(0, len(documents), _BATCH):
        yield documents[start : start + _BATCH]


def _incidence(batch: Sequence[Shingles], known: Shingles) -> csr_matrix:
    """0/1 matrix `[len(batch), len(known)]`: which known shingles each document has."""
    from scipy.sparse import csr_matrix

    values = np.concatenate(batch)
    rows = np.repeat(np.arange(len(batch)), [len(each) for each in batch])
    columns = np.minimum(np.searchsorted(known, values), len(known) - 1)
    hit = known[columns] == values
    shape = (len(batch), len(known))
    return csr_matrix((np.ones(int(hit.sum()), dtype=np.int32), (rows[hit], columns[hit])), shape=shape)
