"""Train once without a session: for trying things out, and for the sweeps behind the stock knobs.

    python -m trainer.play --data DIR --task TASK.json --budget-seconds 12 --set NUM_LAYERS=2

Plays the runner's side of the protocol on a socketpair: no isolation, no setup or memory cap, no audit, and a
validation bpb that trusts the model. Never a result. TASK.json holds what docs/architecture.md calls `task`.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import backends
from backends.base import Backend
from trainer import wire
from trainer.server import load_model
from trainer.task import Task

STOCK = Path(__file__).with_name("train.py")


def main(argv: list[str] | None = None) -> None:
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.budget_seconds is None) == (args.ticks == 0):
        parser.error("give one of --budget-seconds and --ticks: without either a run would never end")
    task = Task.from_message(json.loads(args.task.read_text()))
    source = set_knobs(args.train.read_text(), dict(item.split("=", 1) for item in args.set))
    try:
        backend = backends.load(args.backend, args.threads, args.dtype)
    except ValueError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text(source)
        clock = {"budget_seconds": args.budget_seconds, "ticks": args.ticks}
        played = play(script, args.data, task, backend, seed=args.seed, quiet=args.quiet, **clock)
        if played.snapshot is None:
            sys.exit(f"train.py ended with status {played.status} and saved nothing")
        snapshot = Path(folder) / "model.safetensors"
        snapshot.write_bytes(played.snapshot)
        backend.setup()
        bpb = validate(script, snapshot, args.data, task, backend)
    print(json.dumps(_summary(played, bpb)))


def _summary(played: Played, bpb: float) -> dict[str, Any]:
    last = played.log[-1] if played.log else {}
    return {
        "val_bpb": round(bpb, 5),
        "step": last.get("step"),
        "tokens": last.get("tokens"),
        "setup_seconds": round(played.setup_seconds or 0.0, 3),
        "train_seconds": round(played.train_seconds or 0.0, 3),
        "num_snapshots": played.num_snapshots,
    }


def set_knobs(source: str, knobs: dict[str, str]) -> str:
    """`source` with the right-hand sides of the constants at its top replaced; ValueError if one does not exist."""
    for name, value in knobs.items():
        source, count = re.subn(rf"(?m)^({re.escape(name)} = )[^#\n]*?(?=\s*(#|$))", rf"\g<1>{value}", source, count=1)
        if count == 0:
            raise ValueError(f"--set {name}: train.py has no such constant")
    return source


@dataclass
class Played:
    """What one run left behind. Times are seconds of the monotonic clock."""

    log: list[dict[str, Any]] = field(default_factory=list)
    snapshot: bytes | None = None  # the last one, safetensors
    num_snapshots: int = 0
    setup_seconds: float | None = None
    train_seconds: float | None = None
    status: int | None = None  # exit status of train.py; negative: the signal that ended it


def play(
    script: Path,
    data: Path,
    task: Task,
    backend: Backend,
    *,
    seed: int,
    budget_seconds: float | None = None,
    ticks: int = 0,
    quiet: bool = True,
) -> Played:
    """Run train.py to its deadline, which is after `budget_seconds`, or after `ticks` calls of `progress()`."""
    ours, theirs = socket.socketpair()
    # Who chose a card by a number chose it for this process: under the backend's own choice numbers begin at 0 again.
    own = {name: value for name, value in os.environ.items() if not name.endswith("_VISIBLE_DEVICES")}
    env = own | backend.environment() | {wire.SOCKET_VARIABLE: str(theirs.fileno())}
    launched = time.monotonic()
    child = subprocess.Popen([sys.executable, str(script)], env=env, pass_fds=[theirs.fileno()], cwd=script.parent)
    theirs.close()
    session = _Session(ours, data, task, backend, seed, budget_seconds, ticks, quiet)
    played = session.played
    try:
        while session.answer():
            pass
    except (ConnectionError, TimeoutError):
        pass  # it ended, or its time did
    finally:
        ours.close()
        ended = time.monotonic()
        if ended >= session.deadline:
            child.kill()
        played.status = child.wait()
    if session.started is not None:
        played.setup_seconds = session.started - launched
        played.train_seconds = ended - session.started
    return played


class _Session:
    """The runner's side of the conversation."""

    def __init__(
        self,
        sock: socket.socket,
        data: Path,
        task: Task,
        backend: Backend,
        seed: int,
        budget_seconds: float | None,
        ticks: int,
        quiet: bool,
    ) -> None:
        self.sock, self.data, self.task, self.backend, self.seed = sock, data, task, backend, seed
        self.budget_seconds, self.ticks, self.quiet = budget_seconds, ticks, quiet
        self.deadline = math.inf
        self.started: float | None = None
        self.played = Played()

    def answer(self) -> bool:
        """Answer one message. Raises ConnectionError at the end, TimeoutError at the deadline."""
        left = None if self.deadline == math.inf else max(self.deadline - time.monotonic(), 1e-3)
        message, fds = wire.receive(self.sock, left)
        match message["op"]:
            case "hello":
                device = {"name": self.backend.name, "threads": self.backend.threads, "dtype": self.backend.dtype}
                wire.send(self.sock, {"ok": True, "task": vars(self.task), "backend": device, "seed": self.seed})
            case "start":
                self._start()
            case "save":
                with os.fdopen(fds[0], "rb") as file:
                    self.played.snapshot = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)[:]
                self.played.num_snapshots += 1
                wire.send(self.sock, {"ok": True})
            case "log":
                self._log(message)
        return True

    def _start(self) -> None:
        stream, num_tokens, dtype = _token_stream(self.data, self.seed)
        self.started = time.monotonic()
        if self.budget_seconds and not self.ticks:
            self.deadline = self.started + self.budget_seconds
        page = _progress_page(self.started, self.budget_seconds, self.ticks)
        wire.send(self.sock, {"ok": True, "num_tokens": num_tokens, "dtype": dtype}, [stream, page])
        os.close(stream)
        os.close(page)

    def _log(self, message: dict[str, Any]) -> None:
        self.played.log.append(message)
        if not self.quiet:
            seconds = time.monotonic() - self.started if self.started is not None else 0.0
            print(f"{seconds:7.1f} s  step {message['step']:6d}  loss {message['loss']:.4f}", flush=True)


def validate(script: Path, snapshot: Path, data: Path, task: Task, backend: Backend) -> float:
    """Bits per byte on `val`, by a straightforward forward pass in this process."""
    model = load_model(script, snapshot, task, backend)
    windows = torch.from_numpy(np.load(data / "val.npy").astype(np.int64))
    num_bytes = int(np.load(data / "token_bytes.npy")[windows.numpy()].sum())
    nats = 0.0
    with torch.inference_mode(), backend.autocast():
        for first in range(0, len(windows), task.eval_batch_size):
            targets = windows[first : first + task.eval_batch_size].to(backend.device)
            inputs = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=task.bos_token)
            logits = model(inputs).float()
            nats += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
    return nats / math.log(2) / num_bytes


def _token_stream(data: Path, seed: int) -> tuple[int, int, str]:
    """A file of all training documents in an order given by the seed: (descriptor, number of tokens, dtype)."""
    dtype = json.loads((data / "meta.json").read_text())["dtype"]
    tokens = np.memmap(data / "train.bin", dtype=dtype, mode="r")
    offsets = np.load(data / "train.offsets.npy")
    order = np.random.default_rng(seed).permutation(len(offsets) - 1)
    with tempfile.TemporaryFile() as file:
        for i in order:
            file.write(tokens[offsets[i] : offsets[i + 1]].tobytes())
        file.flush()
        return os.dup(file.fileno()), len(tokens), dtype


def _progress_page(started: float, budget_seconds: float | None, ticks: int) -> int:
    with tempfile.TemporaryFile() as file:
        rate = 1 / budget_seconds if budget_seconds else 0.0
        file.write(struct.pack("<QdddQ", 0, 0.0, started, rate, ticks).ljust(64, b"\0"))
        file.flush()
        return os.dup(file.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train once without a session. Never a result.")
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--task", type=Path, required=True, help="JSON file")
    parser.add_argument("--budget-seconds", type=float)
    parser.add_argument("--ticks", type=int, default=0, help="end after so many calls of progress() instead")
    parser.add_argument("--train", type=Path, default=STOCK)
    parser.add_argument("--set", nargs="*", default=[], metavar="KNOB=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--dtype")
    parser.add_argument("--quiet", action="store_true")
    return parser


if __name__ == "__main__":
    main()
