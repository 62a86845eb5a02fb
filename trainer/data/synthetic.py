"""A generated text for tests and dry runs without a network. Never rankable: whoever reads this file knows the text.

A seeded Markov chain over invented words: a model can learn spelling, word frequencies and which word follows which,
so losses fall as on real text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from trainer.data.source import DataError, Document, Report, read_options

_DEFAULTS = {"seed": 0, "num_bytes": 2_000_000}
_NUM_WORDS = 1500
_NUM_FOLLOWERS = 24
_ONSETS = ["b", "br", "d", "dr", "f", "g", "gr", "k", "kl", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v"]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea"]
_CODAS = ["", "", "n", "r", "s", "l", "nd", "st"]


def open_source(options: Mapping[str, Any], downloads: Path, report: Report) -> SyntheticSource:  # noqa: ARG001
    """Options: `seed`, `num_bytes` (about)."""
    values = read_options(options, _DEFAULTS)
    if values["num_bytes"] < 1:
        raise DataError(f"data.options.num_bytes={values['num_bytes']}: expected a positive number")
    return SyntheticSource(values["seed"], values["num_bytes"])


class SyntheticSource:
    """Documents of 40 to 400 words. Only `random()` is drawn from, which Python keeps stable across versions."""

    def __init__(self, seed: int, num_bytes: int) -> None:
        self._seed, self._num_bytes = seed, num_bytes
        self.inputs: dict[str, str] = {}

    def identity(self) -> dict[str, Any]:
        return {"seed": self._seed, "num_bytes": self._num_bytes}

    def documents(self) -> Iterator[Document]:
        draw = random.Random(self._seed).random
        words = sorted({_word(draw()) + _word(draw()) * (draw() < 0.5) for _ in range(2 * _NUM_WORDS)})[:_NUM_WORDS]
        followers = [[int(draw() ** 2 * len(words)) for _ in range(_NUM_FOLLOWERS)] for _ in words]
        weights = list(accumulate(1 / (rank + 1) for rank in range(_NUM_FOLLOWERS)))
        done = number = 0
        while done < self._num_bytes:
            text = self._text(words, followers, weights, int(40 + 360 * draw()), draw)
            yield Document(f"synthetic/{number:06d}", text)
            done, number = done + len(text), number + 1

    @staticmethod
    def _text(words: list[str], followers: list[list[int]], weights: list[float], length: int, draw: Any) -> str:
        word = int(draw() * len(words))
        parts: list[str] = []
        start = True
        for _ in range(length):
            parts.append(words[word].capitalize() if start else words[word])
            position = draw() * weights[-1]
            rank = next(index for index, weight in enumerate(weights) if position < weight)
            word = followers[word][rank]
            ending = draw()
            start = ending < 0.1
            parts.append(".\n" if ending < 0.03 else ". " if start else ", " if ending < 0.18 else " ")
        return "".join(parts).rstrip(" ,.\n") + ".\n"


def _word(position: float) -> str:
    """A syllable for a number in [0, 1)."""
    index = int(position * len(_ONSETS) * len(_VOWELS) * len(_CODAS))
    index, coda = divmod(index, len(_CODAS))
    onset, vowel = divmod(index, len(_VOWELS))
    return _ONSETS[onset] + _VOWELS[vowel] + _CODAS[coda]
