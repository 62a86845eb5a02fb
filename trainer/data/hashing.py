"""Hashes of many spans of a text at once, in numpy.

The hash of bytes b[s:e] is sum of b[i] * R^(i - s) modulo 2^64 (Rabin-Karp), read off a prefix sum; `mix` then spreads
it over all bits. Not for adversaries: it compares texts that nobody chose against it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

MAX_BYTES = 1 << 18  # longest text hashed at once: the tables of powers stay in the cache
_MODULUS = 1 << 64
_BASE = 0x9E3779B97F4A7C15
_MULTIPLIERS = (np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F))


@lru_cache(maxsize=1)
def _powers() -> tuple[U64, U64]:
    """R^i and R^-i for i in [0, MAX_BYTES]: R is odd, so it has an inverse modulo 2^64."""
    tables = []
    for base in (_BASE, pow(_BASE, -1, _MODULUS)):
        table = np.full(MAX_BYTES + 1, base, dtype=np.uint64)
        table[0] = 1
        tables.append(np.cumprod(table, dtype=np.uint64))
    return tables[0], tables[1]


def mix(values: U64) -> U64:
    """A bijection that lets every input bit reach the high bits."""
    values = values * _MULTIPLIERS[0]
    values ^= values >> np.uint64(32)
    return values * _MULTIPLIERS[1]


def _prefix_sums(data: npt.NDArray[np.uint8]) -> U64:
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(data * _powers()[0][: len(data)], out=sums[1:])
    return sums


def span_hashes(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> U64:
    """Hash of each data[starts[i]:ends[i]]; `data` holds at most MAX_BYTES bytes."""
    sums = _prefix_sums(data)
    return mix((sums[ends] - sums[starts]) * _powers()[1][starts])
