"""A smoke run: a few seconds of training on random tokens, so that a researcher wastes no experiment on a typo.

Same sandbox, same gate, same clock as an experiment, but the tokens are drawn from a Zipf law: nothing that is learned
from them tells anything about the text, so such a run is no experiment in disguise.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness import seeds
from harness.ending import MAX_CLAIM, Trained
from harness.folders import remove
from harness.gate import token_dtype
from harness.records import Smoke
from harness.runner import Runner, TrainRequest

SMOKE_SECONDS = 10.0
MAX_TOKENS = 1 << 22
TOKENS_PER_DOCUMENT = 512
MAX_HEADER_BYTES = 1 << 22


def smoke_run(runner: Runner, source: str, run_dir: Path, budget_seconds: float | None) -> Smoke:
    """Run `source` for at most SMOKE_SECONDS (on the step clock: its usual steps) and say how it went."""
    data_dir = run_dir.parent / "smoke_data"
    write_tokens(data_dir, runner.task["vocab_size"], runner.task["bos_token"], runner.task["reference_tokens"])
    request = TrainRequest(
        run_id="smoke",
        source=source,
        seed=seeds.derive("smoke"),
        budget_seconds=None if budget_seconds is None else min(SMOKE_SECONDS, budget_seconds),
        free_setup_seconds=runner.max_setup_seconds,
    )
    return summed_up(replace(runner, data_dir=data_dir).train(request, run_dir))


def write_tokens(folder: Path, vocab_size: int, bos_token: int, reference_tokens: int) -> None:
    """Random documents in the layout of prepared data, once a session."""
    if (folder / "train.offsets.npy").exists():
        return
    num_documents = max(8, min(reference_tokens, MAX_TOKENS) // TOKENS_PER_DOCUMENT)
    rng = np.random.Generator(np.random.PCG64(0))
    ranks = rng.zipf(1.2, size=(num_documents, TOKENS_PER_DOCUMENT))
    tokens = (ranks % (vocab_size - 1)).astype(token_dtype(vocab_size))
    tokens[:, 0] = bos_token
    building = folder.with_name(f"{folder.name}.part")
    for place in (building, folder):  # what a kill or a power cut left
        remove(place)
    building.mkdir(parents=True)
    with (building / "train.bin").open("wb") as file:
        file.write(tokens.tobytes())
        os.fsync(file.fileno())
    with (building / "train.offsets.npy").open("wb") as file:
        np.save(file, np.arange(num_documents + 1, dtype=np.int64) * TOKENS_PER_DOCUMENT)
        os.fsync(file.fileno())
    building.rename(folder)


def summed_up(trained: Trained) -> Smoke:
    last = trained.curve[-1] if trained.curve else None
    speed = last.tokens / last.seconds if last and last.tokens and last.seconds else None
    return Smoke(
        status=trained.status,
        reason=trained.reason,
        setup_seconds=trained.setup_seconds,
        train_seconds=trained.train_seconds,
        peak_memory_bytes=trained.peak_memory_bytes,
        num_parameters=count_parameters(trained.snapshot) if trained.snapshot else None,
        num_steps=min(max(last.step, 0), MAX_CLAIM) if last else None,
        tokens_per_second=speed,
        log_tail=trained.log_tail,
    )


def count_parameters(snapshot: Path) -> int | None:
    """How many numbers a safetensors file holds, by its header, which the code wrote; None where it makes no sense."""
    with snapshot.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= MAX_HEADER_BYTES:
            return None
        raw = file.read(length)
    try:
        header = json.loads(raw)
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        total = sum(math.prod(min(max(int(size), 0), MAX_CLAIM) for size in shape[:8]) for shape in shapes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return total if total <= MAX_CLAIM else None
