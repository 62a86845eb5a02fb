"""The trusted scorer: `python -I -m trainer.trusted.scorer`, one process per evaluation.

It holds the text; a model server that it asks holds the model. Bulk first: claims for every token, written down, and
that server is destroyed. Then the audit draws its cuts and asks a fresh server. Messages: docs/architecture.md.
Exit status 1 with one line on stderr means that the data or the request are unfit, not the model.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import wire
from trainer.task import Task
from trainer.trusted.audit import Audit, audit_claims
from trainer.trusted.bulk import draw_order, run_bulk
from trainer.trusted.remote import Deadline, EvaluationFailed, ModelServer, RemoteServers, Servers
from trainer.trusted.scoring import EvalText, bits_per_byte, model_inputs, unigram_nll

_SPLITS = ("val", "test")
COUNTED = ("cpu", "null")  # backends whose work is processor time


@dataclass(frozen=True)
class Request:
    """What to score; the runner's first line."""

    data_dir: Path
    split: str
    task: Mapping[str, Any]
    backend: Mapping[str, Any]
    max_eval_seconds: float | None
    max_first_answer_seconds: float | None
    entropy: int | None  # fixes the secrets of a dry run
    save_nll: Path | None  # where to write the claims [num_windows, T], as npy
    reference_nll: Path | None  # the stock model's claims: what targeted cuts are measured against

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Request:
        if message.get("split") not in _SPLITS:
            raise ValueError(f"split={message.get('split')!r}: expected one of {', '.join(_SPLITS)}")
        save, reference = message.get("save_nll"), message.get("reference_nll")
        return cls(
            data_dir=Path(message["data_dir"]),
            split=message["split"],
            task=message["task"],
            backend=message["backend"],
            max_eval_seconds=message.get("max_eval_seconds"),
            max_first_answer_seconds=message.get("max_first_answer_seconds"),
            entropy=message.get("entropy"),
            save_nll=Path(save) if save else None,
            reference_nll=Path(reference) if reference else None,
        )

    def setup(self) -> dict[str, Any]:
        """The first line for a model server: no word of the data, the split or the audit."""
        task = Task.from_message(self.task)
        return {
            "task": asdict(task),
            "backend": dict(self.backend),
            "batch_shape": [task.eval_batch_size, task.sequence_length],
            "vocab_size": task.vocab_size,
        }


@dataclass(frozen=True)
class Result:
    status: str
    code: str | None = None
    reason: str | None = None
    bpb: float | None = None
    nll_nats: float | None = None
    num_bytes: int | None = None
    num_tokens: int | None = None
    first_answer_seconds: float | None = None
    bulk_seconds: float | None = None
    audit_seconds: float | None = None
    audit: Audit | None = None


def main() -> int:
    sock = wire.connect()
    try:
        message, _ = wire.receive(sock)
        request = Request.from_message(message)
        servers = RemoteServers(sock, request.setup(), Deadline.after(request.max_eval_seconds))
        wire.send(sock, {"op": "result", **asdict(evaluate(request, servers))})
    except (ValueError, KeyError, OSError) as error:  # OSError: unreadable data, or the runner is gone
        print(f"scorer: {error!r}", file=sys.stderr)
        return 1
    return 0


def evaluate(request: Request, servers: Servers) -> Result:
    """Score and audit one model.

    Raises:
        ValueError, OSError: the data are unfit or the runner is gone; whatever the model does is in the result.
    """
    try:
        return _evaluate(request, servers)
    except EvaluationFailed as failure:
        return Result(status="crash", code=failure.code, reason=failure.reason)


def _evaluate(request: Request, servers: Servers) -> Result:
    task = Task.from_message(request.task)
    started = time.monotonic()
    server = servers.start("bulk")
    text = load_text(request.data_dir, request.split, task)
    order = draw_order(len(text.windows), task.eval_batch_size, _generator(request.entropy, 0))
    claimed = run_bulk(server, text, order, num_threads(request.backend))
    servers.stop()
    bulk_seconds = time.monotonic() - started

    # The claims stand and their author is gone: only now is anything about the audit decided.
    started = time.monotonic()
    second = servers.start("audit")
    audit, found = audit_claims(
        second,
        text,
        claimed,
        reference=load_reference(request.reference_nll, text.windows, task.vocab_size),
        order=order,
        num_cuts=request.task["audit_cuts"],
        rng=_generator(request.entropy, 1),
    )
    servers.stop()
    audit_seconds = time.monotonic() - started

    if found:
        code, reason = found
        return Result("invalid", code, reason, bulk_seconds=bulk_seconds, audit_seconds=audit_seconds, audit=audit)
    first_answer_seconds = first_answer(request.backend, server, second)
    check_first_answer(first_answer_seconds, request.max_first_answer_seconds)
    if request.save_nll:
        save_whole(request.save_nll, claimed)
    nll_nats = float(claimed.sum(dtype=np.float64))
    return Result(
        status="ok",
        bpb=bits_per_byte(nll_nats, text.num_bytes),
        nll_nats=nll_nats,
        num_bytes=text.num_bytes,
        num_tokens=claimed.size,
        first_answer_seconds=first_answer_seconds,
        bulk_seconds=bulk_seconds,
        audit_seconds=audit_seconds,
        audit=audit,
    )


def first_answer(backend: Mapping[str, Any], *servers: ModelServer) -> float | None:
    """What the model worked before it first answered: the longer one, for it may know which server it is in.

    By the wall (what is no processor), where another program may have delayed one: half the longer, or the shorter.
    """
    known = sorted(server.first_answer_seconds for server in servers if server.first_answer_seconds is not None)
    if not known or backend["name"] in COUNTED:
        return known[-1] if known else None
    return max(known[0], known[-1] / 2)


def check_first_answer(seconds: float | None, limit: float | None) -> None:
    """A model that goes on learning in its server has to do so before it answers: what it learns later, the audit sees.

    Raises:
        EvaluationFailed: `slow_start`.
    """
    if seconds is not None and limit is not None and seconds > limit:
        # Not how long: a model that has seen what it is asked could say something by it.
        reason = f"the model computed for more than {limit:.1f} s before its first answer"
        raise EvaluationFailed("slow_start", f"{reason}: learning belongs before run.save()")


def load_text(data_dir: Path, split: str, task: Task) -> EvalText:
    """Read a split.

    Raises:
        ValueError: it does not fit the task.
    """
    windows = np.load(data_dir / f"{split}.npy", allow_pickle=False)
    token_bytes = np.load(data_dir / "token_bytes.npy", allow_pickle=False)
    decoy = np.load(data_dir / "decoy.npy", allow_pickle=False)
    expected = (len(windows), task.sequence_length)
    if windows.shape != expected or len(windows) == 0 or token_bytes.shape != (task.vocab_size,):
        raise ValueError(
            f"{data_dir}: {split} of shape {windows.shape} and {token_bytes.shape} tokens do not fit task {task.name} "
            f"({task.sequence_length} tokens a window, vocabulary {task.vocab_size}): prepare the data again"
        )
    if max(windows.max(), decoy.max()) >= task.vocab_size:
        raise ValueError(f"{data_dir}: token above the vocabulary of {task.vocab_size}: prepare the data again")
    num_bytes = int(token_bytes.astype(np.int64)[windows].sum())
    windows = windows.astype(np.int64)
    return EvalText(windows, model_inputs(windows, task.bos_token), num_bytes, decoy)


def save_whole(path: Path, values: NDArray[np.float32]) -> None:
    """Under its name it is whole, also after a power cut: the journal will rely on it."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.save(file, values)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_reference(path: Path | None, windows: NDArray[np.int64], vocab_size: int) -> NDArray[np.float32]:
    """The stock model's nats [num_windows, T], or where there are none yet those of token frequencies.

    Raises:
        ValueError: they belong to other windows.
    """
    if path is None:
        return unigram_nll(windows, vocab_size)
    reference: NDArray[np.float32] = np.load(path, allow_pickle=False)
    if reference.shape != windows.shape:
        raise ValueError(f"{path}: shape {reference.shape}, expected {windows.shape}; delete it")
    return reference


def num_threads(backend: Mapping[str, Any]) -> int:
    """Threads for scoring, at most 16: beyond that memory is the limit."""
    return min(16, backend.get("threads") or os.cpu_count() or 1)


def _generator(entropy: int | None, phase: int) -> np.random.Generator:
    """Secrets of a phase, from the operating system at the moment of asking unless fixed."""
    return np.random.default_rng(int.from_bytes(os.urandom(32)) if entropy is None else [entropy, phase])


if __name__ == "__main__":
    sys.exit(main())
