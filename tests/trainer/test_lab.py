"""The outside world of train.py, with the test as the runner."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import backends
from trainer import lab, wire
from trainer.task import Task

TASK = Task("tiny", 512, 64, 20_480, 511, 16, False)


class Runner:
    """The other end: answers one `start`, and holds the files behind it."""

    def __init__(self, sock: socket.socket, page: IO[bytes], stream: IO[bytes]) -> None:
        self.sock, self.page, self.stream = sock, page, stream

    def write_page(self, version: int = 0, base: float = 0.0, at: float = 0.0, rate: float = 0.0, ticks: int = 0):
        os.pwrite(self.page.fileno(), struct.pack("<QdddQ", version, base, at, rate, ticks).ljust(64, b"\0"), 0)

    def start(self, run: lab.Run, tokens: np.ndarray[Any, Any]) -> torch.Tensor:
        self.stream.write(tokens.tobytes())
        self.stream.flush()
        answer = {"ok": True, "num_tokens": len(tokens), "dtype": str(tokens.dtype)}
        wire.send(self.sock, answer, [self.stream.fileno(), self.page.fileno()])
        stream = run.start()
        assert wire.receive(self.sock)[0] == {"op": "start"}
        return stream

    def logged(self) -> list[dict[str, Any]]:
        """All messages that have arrived."""
        found = []
        while True:
            try:
                found.append(wire.receive(self.sock, 0.05)[0])
            except TimeoutError:
                return found


@pytest.fixture
def ends() -> Iterator[tuple[lab.Run, Runner]]:
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as page, tempfile.TemporaryFile() as stream:
        runner = Runner(ours, page, stream)
        runner.write_page()
        yield lab.Run(theirs, TASK, backends.load("cpu", 1, "float32"), 5), runner


def test_open_greets_and_seeds(monkeypatch):
    threads = torch.get_num_threads()

    def draw(seed: int) -> tuple[lab.Run, float, float]:
        ours, theirs = socket.socketpair()
        monkeypatch.setenv("BPBENCH_FD", str(theirs.detach()))
        device = {"name": "cpu", "threads": 1, "dtype": "float32"}
        with ours:
            wire.send(ours, {"ok": True, "task": vars(TASK), "backend": device, "seed": seed})
            run = lab.open()
            assert wire.receive(ours)[0] == {"op": "hello"}
        return run, torch.rand(()).item(), np.random.rand()

    try:
        run, torch_draw, numpy_draw = draw(2**63 - 1)
        assert (run.task, run.seed, run.device) == (TASK, 2**63 - 1, torch.device("cpu"))
        assert draw(2**63 - 1)[1:] == (torch_draw, numpy_draw)
        assert draw(3)[1:] != (torch_draw, numpy_draw)
    finally:
        torch.set_num_threads(threads)


def test_open_without_a_runner_says_so(monkeypatch):
    monkeypatch.delenv("BPBENCH_FD", raising=False)
    with pytest.raises(ValueError, match="started by bpbench"):
        lab.open()


@pytest.mark.parametrize(("dtype", "expected"), [(np.uint16, torch.uint16), (np.uint32, torch.int32)])
def test_start_maps_the_tokens(ends, dtype, expected):
    run, runner = ends
    tokens = np.array([511, 0, 65_535, 7], dtype=dtype)
    stream = runner.start(run, tokens)
    assert stream.dtype == expected
    assert stream.long().tolist() == tokens.tolist()


def test_writing_to_the_tokens_stays_private(ends):
    run, runner = ends
    stream = runner.start(run, np.arange(10, dtype=np.uint16))
    stream[3] = 99
    assert os.pread(runner.stream.fileno(), 20, 0) == np.arange(10, dtype=np.uint16).tobytes()


def test_progress_follows_the_page_and_stays_in_bounds(ends):
    run, runner = ends
    assert run.progress() == 0.0
    runner.start(run, np.zeros(4, dtype=np.uint16))
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    runner.write_page(base=0.25, at=now - 10, rate=0.05)
    assert 0.75 <= run.progress() < 1.0
    runner.write_page(base=0.25, at=now - 10, rate=0.0)
    assert run.progress() == 0.25
    runner.write_page(base=0.9, at=now - 1e6, rate=1.0)
    assert run.progress() == 1.0
    runner.write_page(base=0.1, at=now + 1e6, rate=1.0)
    assert run.progress() == 0.0


def test_progress_counts_its_calls_on_the_step_clock(ends):
    run, runner = ends
    runner.start(run, np.zeros(4, dtype=np.uint16))
    runner.write_page(ticks=4)
    assert [run.progress() for _ in range(6)] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_page_is_not_read_while_it_is_written(ends):
    run, runner = ends
    runner.start(run, np.zeros(4, dtype=np.uint16))
    runner.write_page(version=1, base=0.9)
    timer = threading.Timer(0.1, runner.write_page, kwargs={"version": 2, "base": 0.4})
    timer.start()
    assert run.progress() == 0.4
    timer.join()


class Loss:
    """A loss on a device: reading it waits."""

    def __init__(self) -> None:
        self.reads = 0

    def __float__(self) -> float:
        self.reads += 1
        return 2.5


def test_logs_are_thinned_and_dropped_ones_cost_nothing(ends):
    run, runner = ends
    loss = Loss()
    began = time.monotonic()
    for step in range(2000):
        run.log(step=step, loss=loss, tokens=step * 10)
    elapsed = time.monotonic() - began
    logged = runner.logged()
    assert logged[0] == {"op": "log", "step": 0, "loss": 2.5, "tokens": 0}
    assert len(logged) == loss.reads <= elapsed / 0.05 + 1


def test_every_step_is_logged_on_the_step_clock(ends):
    run, runner = ends
    runner.start(run, np.zeros(4, dtype=np.uint16))
    runner.write_page(ticks=100)
    for step in range(50):
        run.log(step=step, loss=torch.tensor(1.5))
    assert [message["step"] for message in runner.logged()] == list(range(50))


def test_logging_does_not_wait_for_a_runner_that_does_not_read(ends):
    run, runner = ends
    runner.start(run, np.zeros(4, dtype=np.uint16))
    runner.write_page(ticks=1)
    worker = threading.Thread(target=lambda: [run.log(step=i, loss=1.0) for i in range(20_000)], daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive()
    steps = [message["step"] for message in runner.logged()]
    assert steps == list(range(len(steps)))  # whole lines only


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("table", torch.arange(6).view(2, 3).T)  # not contiguous


def save_in_thread(run: lab.Run, model: nn.Module) -> tuple[threading.Thread, list[BaseException]]:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run.save(model)
        except lab.SaveRefused as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, failures


def test_a_snapshot_holds_every_tensor(ends):
    run, runner = ends
    model = Tied()
    thread, failures = save_in_thread(run, model)
    message, (fd,) = wire.receive(runner.sock, 30)
    assert message == {"op": "save"}
    assert thread.is_alive()  # waits for the answer
    with os.fdopen(fd, "rb") as file:
        saved = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)[:]
    wire.send(runner.sock, {"ok": True})
    thread.join(30)
    assert not failures
    restored = Tied()
    restored.load_state_dict(safetensors.torch.load(saved), strict=True)
    assert torch.equal(restored.second.weight, model.first.weight)
    assert torch.equal(restored.table, model.table)


def test_a_refused_snapshot_is_an_exception(ends):
    run, runner = ends
    thread, failures = save_in_thread(run, Tied())
    os.close(wire.receive(runner.sock, 30)[1][0])
    wire.send(runner.sock, {"ok": False, "error": "snapshot above 1 GB"})
    thread.join(30)
    assert [str(failure) for failure in failures] == ["snapshot above 1 GB"]


def test_nothing_stays_open_after_saving_and_starting(ends):
    run, runner = ends
    before = len(list(Path("/dev/fd").iterdir()))
    stream = runner.start(run, np.zeros(4, dtype=np.uint16))
    for _ in range(3):
        thread, _ = save_in_thread(run, Tied())
        os.close(wire.receive(runner.sock, 30)[1][0])
        wire.send(runner.sock, {"ok": True})
        thread.join(30)
    del stream
    run._page.close()
    assert len(list(Path("/dev/fd").iterdir())) == before
