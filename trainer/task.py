"""What train.py may know about its task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Task:
    """Sizes of the problem, given to `build_model` in training and again in evaluation."""

    name: str
    vocab_size: int
    sequence_length: int  # tokens in an evaluation window; training may use any length
    reference_tokens: int  # training tokens that the stock train.py sees in its budget
    bos_token: int  # precedes every document and every evaluation window
    eval_batch_size: int
    compile: bool  # whether compiling is worth its time at this size

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Task:
        """Pick the task's keys out of a message; others are ignored.

        Raises:
            ValueError: a key is missing.
        """
        missing = [field.name for field in fields(cls) if field.name not in message]
        if missing:
            raise ValueError(f"task without {', '.join(missing)}: expected the keys listed in docs/architecture.md")
        return cls(**{field.name: message[field.name] for field in fields(cls)})
