"""The outside world of train.py: its task, its device, its data, its clock.

    run = lab.open()            # setup: free as far as the stock script's is, and compilers
    model = build_model(run.task).to(run.device)
    ...                         # compile, warm up
    tokens = run.start()        # the clock starts here, and only now are there data
    while run.progress() < 1:   # share of the budget that is used up
        with run.autocast():
            ...
        run.log(step=step, loss=loss, tokens=seen)
    run.save(model)             # whatever was saved last before the deadline is scored

At the deadline the whole process tree is killed, wherever it is. `save` therefore has to return before that: leave
some room. It may be called at any time and as often as you like; each call replaces the one before.

This file is not part of the experiment: it is restored before every run, and nothing that is changed here changes a
score. The messages behind it are in docs/architecture.md.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import backends
from backends.base import Backend, seed_everything
from trainer import wire
from trainer.task import Task

# u64 version (odd while it is being written), f64 base_progress, f64 base_time, f64 rate, u64 ticks_total
_PAGE = struct.Struct("<QdddQ")
_MIN_LOG_SECONDS = 0.05


class SaveRefused(RuntimeError):
    """The runner did not take the snapshot; the message says why."""


def open() -> Run:
    """Connect to the runner, set the device up and seed torch, numpy and random with the seed that was dealt.

    Raises ValueError when not started by bpbench; `python -m trainer.play` starts train.py without a session.
    """
    sock = wire.connect()
    wire.send(sock, {"op": "hello"})
    answer, _ = wire.receive(sock)
    device = answer["backend"]
    backend = backends.load(device["name"], device["threads"], device["dtype"])
    backend.setup()
    seed = answer["seed"]
    seed_everything(seed)
    return Run(sock, Task.from_message(answer["task"]), backend, seed)


class Run:
    """One training run. `task`, `device` and `seed` are plain attributes.

    `backend.attention()` says which attention kernels train.py may use here, `backend.memory_cap_bytes()` where the
    device's allocator stops.
    """

    def __init__(self, sock: socket.socket, task: Task, backend: Backend, seed: int) -> None:
        self.task = task
        self.backend = backend
        self.device = backend.device
        self.seed = seed
        self._sock = sock
        self._page: mmap.mmap | None = None
        self._num_progress_calls = 0
        self._last_log = -float("inf")

    def autocast(self) -> AbstractContextManager[Any]:
        """A fresh context in which matrix products run in the device's fast dtype; parameters stay float32."""
        return self.backend.autocast()

    def start(self) -> torch.Tensor:
        """Start the clock; return the training tokens, 1-D on the CPU (uint16, or int32 for large vocabularies).

        Every document is preceded by `task.bos_token`; the seed decides the order of the documents. Nothing has been
        read yet: pages arrive as they are touched. Writing to the tensor changes a private copy.
        """
        wire.send(self._sock, {"op": "start"})
        answer, (tokens, page) = wire.receive(self._sock)
        self._page = mmap.mmap(page, _PAGE.size, access=mmap.ACCESS_READ)
        # Not ACCESS_READ: torch warns about memory that it cannot write to.
        stream = mmap.mmap(tokens, 0, access=mmap.ACCESS_COPY)
        os.close(page)
        os.close(tokens)
        # torch has no arithmetic for uint32, and no vocabulary needs the sign bit.
        dtype = torch.uint16 if answer["dtype"] == "uint16" else torch.int32
        return torch.frombuffer(stream, dtype=dtype, count=answer["num_tokens"])

    def progress(self) -> float:
        """Share of the budget used so far, in [0, 1]; 0 before `start()`. Costs about a microsecond.

        Where time is counted in steps (task `tiny`) each call is one tick: call it once a step.
        """
        if self._page is None:
            return 0.0
        base, base_time, rate, ticks_total = self._read_page(self._page)
        if ticks_total:
            progress = self._num_progress_calls / ticks_total
            self._num_progress_calls += 1
        else:
            # As the harness does: on macOS CLOCK_MONOTONIC is another clock, which goes on while the machine sleeps.
            progress = base + (time.monotonic() - base_time) * rate
        return min(max(progress, 0.0), 1.0)

    def log(self, *, step: int, loss: float | torch.Tensor, tokens: int = 0) -> None:
        """Report the training loss in nats per token, and the tokens seen so far. Call it every step.

        Lines beyond 20 a second are dropped without looking at them: a loss that is still a tensor on the device is
        waited for only when its line is sent.
        """
        now = time.monotonic()
        on_ticks = self._page is not None and self._read_page(self._page)[3] > 0
        if not on_ticks and now - self._last_log < _MIN_LOG_SECONDS:
            return
        if not select.select([], [self._sock], [], 0)[1]:
            return  # the runner is behind: training does not wait for it
        self._last_log = now
        wire.send(self._sock, {"op": "log", "step": step, "loss": float(loss), "tokens": tokens})

    def save(self, model: torch.nn.Module) -> None:
        """Hand over the weights; returns when the runner has copied them. The last ones before the deadline are scored.

        They are loaded into a fresh `build_model(task)`. Raises SaveRefused if the runner does not take them.
        """
        model = getattr(model, "_orig_mod", model)  # a compiled model names its tensors differently
        # Cloned: safetensors refuses tensors that share memory, as tied weights do.
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
        fd = _anonymous_file(safetensors.torch.save(weights))
        try:
            wire.send(self._sock, {"op": "save"}, [fd])
            answer, _ = wire.receive(self._sock)  # macOS may lose a descriptor that is closed on its way
        finally:
            os.close(fd)
        if not answer["ok"]:
            raise SaveRefused(answer["error"])

    @staticmethod
    def _read_page(page: mmap.mmap) -> tuple[float, float, float, int]:
        while True:
            version, base, base_time, rate, ticks_total = _PAGE.unpack_from(page)
            if version % 2 == 0 and _PAGE.unpack_from(page)[0] == version:
                return base, base_time, rate, ticks_total


def _anonymous_file(data: bytes) -> int:
    """A descriptor of a file that has no name, holding `data`."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("snapshot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        fd, path = tempfile.mkstemp()
        Path(path).unlink()
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    return fd
