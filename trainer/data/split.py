"""Which split a document belongs to: a hash of its near-duplicate cluster decides, so near duplicates stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.data.neardup import Shingles, cluster
from trainer.data.source import DataError, Document, Report

SPLITS = ("train", "val", "test", "decoy")
DEFAULT_FRACTIONS = {"val": 0.025, "test": 0.025, "decoy": 0.0075}


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
) -> list[str]:
    """The split of each document. `documents` are sorted by id, so a cluster is named by its smallest id."""
    splits = []
    for first in cluster(sets, report):
        position = unit_hash(f"split:{documents[first].id}")
        for name, share in fractions.items():
            if position < share:
                splits.append(name)
                break
            position -= share
        else:
            splits.append("train")
    return splits
