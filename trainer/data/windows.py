"""Text to tokens on disk: the training stream, the evaluation windows, the decoy tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken

from trainer.data.source import DataError, Document, Report
from trainer.data.split import unit_hash

Tokens = npt.NDArray[Any]  # uint16 or uint32

_BATCH_CHARS = 4 << 20


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Little-endian uint16, or uint32 where the vocabulary needs it."""
    return np.dtype("<u2" if vocab_size < 1 << 16 else "<u4")


class Encoder:
    """Encodes documents, each preceded by BOS, and proves for each that decoding gives the text back."""

    def __init__(self, encoding: tiktoken.Encoding, total_chars: int, report: Report) -> None:
        self._encoding = encoding
        self._dtype = token_dtype(encoding.n_vocab)
        self._total, self._done, self._report = total_chars, 0, report

    def encode(self, documents: Sequence[Document]) -> Iterator[Tokens]:
        """The tokens of each document, in order.

        Raises:
            DataError: a document does not survive the round trip.
        """
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        bos = self._encoding.n_vocab - 1
        for batch in _batches(documents):
            encoded = self._encoding.encode_ordinary_batch([each.text for each in batch], num_threads=threads)
            for document, tokens in zip(batch, encoded, strict=True):
                if self._encoding.decode_bytes(tokens) != document.text.encode():
                    raise DataError(f"document {document.id!r} changes when encoded and decoded: report this as a bug")
                yield np.array([bos, *tokens], dtype=self._dtype)
            self._done += sum(len(each.text) for each in batch)
            self._report("encode", self._done, self._total, "B")


def _batches(documents: Sequence[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write_train(encoder: Encoder, documents: Sequence[Document], folder: Path) -> int:
    """Write train.bin and train.offsets.npy (int64 `[num_documents + 1]`); return the number of tokens."""
    offsets = [0]
    with (folder / "train.bin").open("wb") as file:
        for tokens in encoder.encode(documents):
            file.write(tokens.tobytes())
            offsets.append(offsets[-1] + len(tokens))
    np.save(folder / "train.offsets.npy", np.array(offsets, dtype=np.int64))
    return offsets[-1]


def flat_tokens(encoder: Encoder, documents: Sequence[Document]) -> Tokens:
    """All documents one after the other, in an order that only their ids decide."""
    shuffled = sorted(documents, key=lambda document: unit_hash(f"order:{document.id}"))
    return np.concatenate(list(encoder.encode(shuffled)) or [np.empty(0, dtype=np.uint16)])


def eval_windows(tokens: Tokens, split: str, num_windows: int, sequence_length: int) -> Tokens:
    """Disjoint windows `[num_windows, sequence_length]`, spread evenly over `tokens`.

    Raises:
        DataError: the split has too few tokens.
    """
    have = len(tokens) // sequence_length
    if have < num_windows:
        raise DataError(
            f"split {split} has {len(tokens)} tokens, {num_windows} windows of {sequence_length} need "
            f"{num_windows * sequence_length}: use more text, raise data.options.fractions.{split} or lower "
            "task.num_eval_windows"
        )
    picked = np.arange(num_windows) * have // num_windows
    return tokens[: have * sequence_length].reshape(have, sequence_length)[picked]


def decoy_tokens(tokens: Tokens, num_tokens: int) -> Tokens:
    """The first `num_tokens` of the decoy split.

    Raises:
        DataError: the split has too few tokens.
    """
    if len(tokens) < num_tokens:
        raise DataError(
            f"split decoy has {len(tokens)} tokens, {num_tokens} are needed: "
            "use more text, raise data.options.fractions.decoy or lower task.num_decoy_tokens"
        )
    return tokens[:num_tokens]
