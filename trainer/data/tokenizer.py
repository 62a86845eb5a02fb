"""The tokenizer: BPE trained by rustbpe, run by tiktoken, stored as JSON.

`vocab_size` counts the one special token `<|bos|>`, whose id is `vocab_size - 1`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rustbpe
import tiktoken

from trainer.data.source import DataError, Report

BOS = "<|bos|>"
MIN_VOCAB_SIZE = 257  # every byte, and BOS
MAX_TRAIN_BYTES = 256 << 20  # merges have settled long before

# Code is half of the default text, so a line break takes the indentation after it along, and a
# sign at the end of a line (`:`, `,`, `)`) takes both; measured 5 % fewer tokens than breaking between them.
PATTERN = "|".join(
    (
        r"[^\n\p{L}\p{N}]?[\p{L}\p{M}]+",  # a word with the blank, dot, bracket or underscore before it
        r"\p{N}{1,2}",
        r" ?[^\s\p{L}\p{N}]+(?:\n+[ \t]*)?",  # signs, and the line break they stand before
        r"\n+[ \t]*",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def train(texts: Iterable[str], vocab_size: int, report: Report) -> tiktoken.Encoding:
    """Train on `texts`.

    Raises:
        DataError: a vocabulary too small to hold all bytes, or too large for the text.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise DataError(f"task.vocab_size={vocab_size}: expected at least {MIN_VOCAB_SIZE} (256 bytes and {BOS})")
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(_limited(texts, report), vocab_size - 1, pattern=PATTERN)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) != vocab_size - 1:
        raise DataError(
            f"task.vocab_size={vocab_size}: the text is enough for {len(ranks) + 1}; use more text or fewer tokens"
        )
    return _encoding(PATTERN, ranks)


def _limited(texts: Iterable[str], report: Report) -> Iterator[str]:
    done = 0
    for text in texts:
        yield text
        done += len(text)
        report("tokenizer", done, None, "B")
        if done >= MAX_TRAIN_BYTES:
            return


def _encoding(pattern: str, ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding("bpbench", pat_str=pattern, mergeable_ranks=ranks, special_tokens={BOS: len(ranks)})


def save(encoding: tiktoken.Encoding, path: Path) -> None:
    """Write `pattern`, base64 `ranks` in order of rank, and `specials`."""
    ranks = [encoding.decode_single_token_bytes(rank) for rank in range(encoding.n_vocab - 1)]
    content = {
        "pattern": encoding._pat_str,
        "ranks": [base64.b64encode(token).decode() for token in ranks],
        "specials": {BOS: encoding.n_vocab - 1},
    }
    path.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


def load(path: Path) -> tiktoken.Encoding:
    """The tokenizer that `save` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return _encoding(content["pattern"], {base64.b64decode(token): rank for rank, token in enumerate(content["ranks"])})


def token_bytes(encoding: tiktoken.Encoding) -> npt.NDArray[np.int32]:
    """UTF-8 bytes of each token, int32 `[vocab_size]`; 0 for BOS."""
    lengths = [len(encoding.decode_single_token_bytes(rank)) for rank in range(encoding.n_vocab - 1)]
    return np.array([*lengths, 0], dtype=np.int32)
