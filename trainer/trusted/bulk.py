"""The bulk phase: every window once, in a secret order, and a few of them twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trainer.trusted.remote import EvaluationFailed, ModelServer
from trainer.trusted.scoring import CHUNK_BYTES, EvalText, token_nll
from trainer.trusted.stats import mean_bounds

MIN_REPEATS = 4

# How far two answers to the same window may lie apart, mean of |difference| over its tokens in nats. Honest models
# repeat themselves exactly, or differ by rounding where the numerics see the batch's shape or neighbours (grouped
# products of a mixture of experts or an FFT in bf16: up to 0.03 at single tokens, below 0.01 on average). Dropout of
# 0.1 left switched on differs by 0.1 and more.
MAX_MEAN_ABS_NATS = 0.05
# Rounding takes no side. A mean that is surely beyond this comes from a state carried over: the model has learnt
# from the windows in between.
MAX_MEAN_SHIFT_NATS = 0.001


@dataclass(frozen=True)
class Order:
    """What is asked when. `windows` is [num_batches, B]; `is_repeat` marks second askings, which are not scored."""

    windows: NDArray[np.int64]
    is_repeat: NDArray[np.bool_]

    def batch_of(self) -> NDArray[np.int64]:
        """[num_windows]: the batch that scored each window."""
        batch, row = np.nonzero(~self.is_repeat)
        answer = np.empty(len(batch), np.int64)
        answer[self.windows[batch, row]] = batch
        return answer


def draw_order(num_windows: int, batch_size: int, rng: np.random.Generator) -> Order:
    """Full batches in random order; what they have room for repeats windows of earlier batches.

    At secret places: a model that learns from what it is asked would else stop to learn where it is asked twice.
    """
    num_batches = -(-(num_windows + MIN_REPEATS) // batch_size)
    num_slots = num_batches * batch_size
    first_slot = min(batch_size, num_windows)  # the first batch has nothing before it
    repeats = first_slot + rng.choice(num_slots - first_slot, num_slots - num_windows, replace=False)
    is_repeat = np.isin(np.arange(num_slots), repeats)
    windows = np.empty(num_slots, np.int64)
    windows[~is_repeat] = rng.permutation(num_windows)
    for slot in repeats:
        known = ~is_repeat[: max(first_slot, slot // batch_size * batch_size)]
        windows[slot] = windows[rng.choice(np.flatnonzero(known))]
    slots = rng.permuted(np.arange(num_slots).reshape(num_batches, batch_size), axis=1)
    return Order(windows[slots], is_repeat[slots])


def run_bulk(server: ModelServer, text: EvalText, order: Order, num_threads: int) -> NDArray[np.float32]:
    """Score every window.

    Args:
        num_threads: for the scoring, while the server waits.

    Returns:
        [num_windows, T] nats, all finite.

    Raises:
        EvaluationFailed: `non_finite` or `nondeterministic`, or what the server reports.
    """
    nll = np.empty(text.windows.shape, np.float32)
    repeats: dict[int, list[NDArray[np.float32]]] = {}
    with ThreadPoolExecutor(num_threads) as pool:
        for batch, is_repeat in zip(order.windows, order.is_repeat, strict=True):
            server.forward(text.inputs[batch])
            answers = np.stack(list(pool.map(partial(score_row, server), range(len(batch)), text.windows[batch])))
            if not np.isfinite(answers).all():
                raise EvaluationFailed("non_finite", "forward returned NaN or infinite logits")
            nll[batch[~is_repeat]] = answers[~is_repeat]
            for window, answer in zip(batch[is_repeat], answers[is_repeat], strict=True):
                repeats.setdefault(int(window), []).append(answer)
    check_repeats(np.stack([answer - nll[window] for window, answers in repeats.items() for answer in answers]))
    return nll


def score_row(server: ModelServer, row: int, targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Nats [T] of one row of what was forwarded last."""
    chunk = max(1, CHUNK_BYTES // (4 * server.vocab_size))
    parts = (slice(start, min(start + chunk, len(targets))) for start in range(0, len(targets), chunk))
    return np.concatenate([token_nll(server.read(row, part.start, part.stop), targets[part]) for part in parts])


def check_repeats(differences: NDArray[np.float32]) -> None:
    """Differences [R, T] between second and first answers.

    Raises:
        EvaluationFailed: `nondeterministic`.
    """
    if np.abs(differences).mean(axis=1).max() > MAX_MEAN_ABS_NATS:
        # Not how far apart: a model that has seen what it is asked could say something by it.
        raise EvaluationFailed(
            "nondeterministic",
            "forward answered one window in two ways: eval() allows no chance, no state and no look at other rows",
        )
    require_no_shift(differences.mean(axis=1))


def require_no_shift(shifts: NDArray[np.floating]) -> None:
    """Mean differences [R] of whole windows, from two moments that should not matter. Windows are the unit, since
    tokens of one window err together.

    Raises:
        EvaluationFailed: `nondeterministic`.
    """
    _, lower, upper = mean_bounds(shifts)
    if lower > MAX_MEAN_SHIFT_NATS or upper < -MAX_MEAN_SHIFT_NATS:
        raise EvaluationFailed(
            "nondeterministic",
            "forward's answers depend on earlier calls: keep no state between calls",
        )
