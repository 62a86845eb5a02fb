"""Which split a document belongs to: a hash of its near-duplicate cluster decides, so near duplicates stay together.

So do the pieces of a long text, as long as there are enough texts to fill every split. A folder of a few books has not:
there each piece is on its own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.data.neardup import Shingles, cluster
from trainer.data.source import DataError, Document, Report

SPLITS = ("train", "val", "test", "decoy")
DEFAULT_FRACTIONS = {"val": 0.025, "test": 0.025, "decoy": 0.0075}
MIN_EXPECTED = 4  # clusters in the smallest split: one of fewer may well stay empty
MAX_SHARE = 0.05  # of all characters in one cluster: more would turn the splits' sizes into luck


@dataclass(frozen=True)
class Splits:
    names: list[str]  # of each document
    by: str  # "document", or "piece" where the pieces of a text may lie in several splits


def read_fractions(value: Any) -> dict[str, float]:
    """The share of clusters in val, test and decoy; the rest is train.

    Raises:
        DataError: other keys, or shares that leave train less than half.
    """
    fractions: dict[str, float] = dict(DEFAULT_FRACTIONS)
    if value is None:
        return fractions
    if not isinstance(value, Mapping) or not set(value) <= set(fractions):
        raise DataError(f"data.options.fractions={value!r}: expected shares for {', '.join(fractions)}")
    for name, share in value.items():
        if not isinstance(share, int | float) or not 0 < share < 1:
            raise DataError(f"data.options.fractions.{name}={share!r}: expected a number between 0 and 1")
        fractions[name] = float(share)
    if sum(fractions.values()) > 0.5:
        raise DataError(f"data.options.fractions={fractions}: expected at most 0.5 in total")
    return fractions


def unit_hash(text: str) -> float:
    """`text` hashed to [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / (1 << 48)


def assign_splits(
    documents: Sequence[Document], sets: Sequence[Shingles], fractions: Mapping[str, float], report: Report
) -> Splits:
    """The split of each document. `documents` are sorted by id, so a cluster is named by its smallest id."""
    alone = cluster(sets, report)
    together = _with_siblings(alone, documents)
    enough = together == alone or _fill_every_split(together, documents, fractions)
    names = []
    for first in together if enough else alone:
        position = unit_hash(f"split:{documents[first].id}")
        for name, share in fractions.items():
            if position < share:
                names.append(name)
                break
            position -= share
        else:
            names.append("train")
    return Splits(names, "document" if enough else "piece")


def _with_siblings(clusters: Sequence[int], documents: Sequence[Document]) -> list[int]:
    """`clusters` joined where they hold pieces of one text; each still named by its first document."""
    leads = list(range(len(clusters)))  # of a joined cluster, on the way to its smallest index

    def lead(index: int) -> int:
        while leads[index] != index:
            leads[index] = leads[leads[index]]
            index = leads[index]
        return index

    first_of: dict[str, int] = {}
    for index, document in zip(clusters, documents, strict=True):
        if document.parent is not None:
            mine, theirs = lead(index), lead(first_of.setdefault(document.parent, index))
            leads[max(mine, theirs)] = min(mine, theirs)
    return [lead(index) for index in clusters]


def _fill_every_split(clusters: Sequence[int], documents: Sequence[Document], fractions: Mapping[str, float]) -> bool:
    sizes: Counter[int] = Counter()
    for index, document in zip(clusters, documents, strict=True):
        sizes[index] += len(document.text)
    many = min(fractions.values()) * len(sizes) >= MIN_EXPECTED
    return many and max(sizes.values()) <= MAX_SHARE * sizes.total()
