"""Train once without a session: for trying things out, and for the sweeps behind the stock knobs.

    python -m trainer.play --data DIR --task TASK.json --budget-seconds 12 --set NUM_LAYERS=2

Plays the runner's side of the protocol on a socketpair: no isolation, no setup or memory cap, no audit, and a
validation bpb that trusts the model. Never a result. TASK.json holds what docs/architecture.md calls `task`.
"""

from __future__ import annotations

import argparse
import importlib.util
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
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

import backends
from backends.base import Backend
from trainer import wire
from trainer.task import Task

STOCK = Path(__file__).with_name("train.py")


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    task = Task(**json.loads(args.task.read_text()))
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
        if played["snapshot"] is None:
            sys.exit(f"train.py ended with status {played['status']} and saved nothing")
        backend.setup()
        bpb = validate(script, played["snapshot"], args.data, task, backend)
    last = played["log"][-1] if played["log"] else {}
    summary = {key: played[key] for key in ("setup_seconds", "train_seconds", "num_snapshots")}
    print(json.dumps({"val_bpb": round(bpb, 5), "step": last.get("step"), "tokens": last.get("tokens")} | summary))


def set_knobs(source: str, knobs: dict[str, str]) -> str:
    """`source` with the right-hand sides of the constants at its top replaced; ValueError if one does not exist."""
    for name, value in knobs.items():
        source, count = re.subn(rf"(?m)^({re.escape(name)} = )[^#\n]*?(?=\s*(#|$))", rf"\g<1>{value}", source, count=1)
        if count == 0:
            raise ValueError(f"--set {name}: train.py has no such constant")
    return source


def play(
    script: Path,
    data: Path,
    task: Task,
    backend: Backend,
    *,
    seed: int,
    budget_seconds: float | None,
    ticks: int = 0,
    quiet: bool = True,
) -> dict[str, Any]:
    """Run train.py to its deadline and return `log`, `snapshot` (safetensors bytes or None), times and exit status.

    The clock is `budget_seconds` of wall time, or `ticks` calls of `progress()` where that is above 0.
    """
    ours, theirs = socket.socketpair()
    env = os.environ | backend.environment() | {wire.SOCKET_VARIABLE: str(theirs.fileno())}
    launched = time.monotonic()
    child = subprocess.Popen([sys.executable, str(script)], env=env, pass_fds=[theirs.fileno()], cwd=script.parent)
    theirs.close()
    out: dict[str, Any] = {"log": [], "snapshot": None, "num_snapshots": 0, "setup_seconds": None}
    deadline = math.inf
    started = math.nan
    try:
        while True:
            message, fds = wire.receive(ours, None if deadline == math.inf else max(deadline - time.monotonic(), 1e-3))
            if message["op"] == "hello":
                device = {"name": backend.name, "threads": backend.threads, "dtype": backend.dtype}
                wire.send(ours, {"ok": True, "task": vars(task), "backend": device, "seed": seed})
            elif message["op"] == "start":
                stream, num_tokens, dtype = _token_stream(data, seed)
                started = time.monotonic()
                if not ticks and budget_seconds:
                    deadline = started + budget_seconds
                page = _progress_page(started, budget_seconds, ticks)
                wire.send(ours, {"ok": True, "num_tokens": num_tokens, "dtype": dtype}, [stream, page])
                out["setup_seconds"] = round(started - launched, 3)
                for fd in (stream, page):
                    os.close(fd)
            elif message["op"] == "save":
                with os.fdopen(fds[0], "rb") as file:
                    out["snapshot"] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)[:]
                out["num_snapshots"] += 1
                wire.send(ours, {"ok": True})
            elif message["op"] == "log":
                out["log"].append(message)
                if not quiet:
                    print(f"{time.monotonic() - started:7.1f} s  step {message['step']:6d}  loss {message['loss']:.4f}")
    except (ConnectionError, TimeoutError):
        pass
    finally:
        ours.close()
        if time.monotonic() >= deadline:
            child.kill()
        out["status"] = child.wait()
    out["train_seconds"] = round(time.monotonic() - started, 3)
    return out


def validate(script: Path, snapshot: bytes, data: Path, task: Task, backend: Backend) -> float:
    """Bits per byte on `val`, by a straightforward forward pass in this process."""
    spec = importlib.util.spec_from_file_location("played_train", script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build_model(task).to(backend.device).eval()
    model.load_state_dict(safetensors.torch.load(snapshot), strict=True)
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
