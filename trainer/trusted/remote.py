"""The scorer's view of a model server, and its lifeline: deadlines, buffers, fixed error codes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer import wire
from trainer.trusted.buffers import InputBuffer, OutputBuffer

# A server that says nothing for so long is dead, whether or not the evaluation as a whole has a limit.
MAX_SILENCE_SECONDS = 300.0

_REASONS = {
    "server_start": "the model server did not start",
    "load": "build_model(task) failed in a fresh process, or its parameters are not those that were saved",
    "forward": "the model failed in evaluation: forward must take int64 tokens [B, T] and needs no files, no gradients",
    "shape": "forward returned another shape than [B, T, vocab_size]",
    "eval_timeout": "evaluation took too long: forward must not cost much more than the stock model's",
}


class EvaluationFailed(Exception):
    """The evaluation ends without a number. `code` is one of those in docs/architecture.md."""

    def __init__(self, code: str, reason: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.reason = reason or _REASONS[code]


class ModelServer(Protocol):
    """A model that answers batches."""

    vocab_size: int
    first_answer_seconds: float | None
    """What the model has worked before it first answered; None: not yet, or not known here."""

    def forward(self, tokens: NDArray[np.int64]) -> None:
        """Ask for the logits of `tokens` [B, T]; return when they are there."""

    def read(self, row: int, start: int, stop: int) -> NDArray[np.float32]:
        """A private copy [stop - start, V] of the logits of the last batch. Each is read once: it may change later."""


class Servers(Protocol):
    """Where model servers come from."""

    def start(self, phase: str) -> ModelServer:
        """A fresh server for `bulk` or `audit`."""

    def stop(self) -> None:
        """Return when the last one is gone with all its children."""


@dataclass(frozen=True)
class Deadline:
    """When the whole evaluation has to be over; None: only silence ends it."""

    at: float | None  # on time.monotonic()

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        return cls(None if seconds is None else time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds that the next answer may take.

        Raises:
            EvaluationFailed: `eval_timeout`.
        """
        left = MAX_SILENCE_SECONDS if self.at is None else min(self.at - time.monotonic(), MAX_SILENCE_SECONDS)
        if left <= 0:
            raise EvaluationFailed("eval_timeout")
        return left


class RemoteServers:
    """Model servers that the runner starts and stops."""

    def __init__(self, runner: socket.socket, setup: Mapping[str, Any], deadline: Deadline) -> None:
        """`setup` is the first line for a server: see docs/architecture.md."""
        self._runner = runner
        self._setup = setup
        self._deadline = deadline
        self._server: RemoteServer | None = None

    def start(self, phase: str) -> RemoteServer:
        wire.send(self._runner, {"op": "server", "phase": phase})
        answer, fds = wire.receive(self._runner, MAX_SILENCE_SECONDS)
        if not answer.get("ok") or len(fds) != 1:
            raise EvaluationFailed("server_start")
        self._server = RemoteServer(socket.socket(fileno=fds[0]), self._setup, self._deadline, self._work_seconds)
        return self._server

    def _work_seconds(self) -> float | None:
        wire.send(self._runner, {"op": "work"})
        seconds = wire.receive(self._runner, MAX_SILENCE_SECONDS)[0].get("seconds")
        return None if seconds is None else float(seconds)

    def stop(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        wire.send(self._runner, {"op": "stop"})
        wire.receive(self._runner, MAX_SILENCE_SECONDS)


class RemoteServer:
    """A model server behind a socket and two buffers. Of what it says, only `ok` and a known code are looked at."""

    def __init__(
        self,
        sock: socket.socket,
        setup: Mapping[str, Any],
        deadline: Deadline,
        work_seconds: Callable[[], float | None],
    ) -> None:
        """`work_seconds`: what the server has used of the device so far, from somebody who can be believed."""
        batch, length = setup["batch_shape"]
        self.vocab_size: int = setup["vocab_size"]
        self._shape = (batch, length)
        self._sock = sock
        self._deadline = deadline
        self._ready = False
        self._work_seconds = work_seconds
        self._loading_from: float | None = None
        self.first_answer_seconds: float | None = None
        self._tokens = InputBuffer(batch * length * 8)
        self._logits = OutputBuffer(batch * length * self.vocab_size)
        with _death_means("server_start"):
            sock.settimeout(MAX_SILENCE_SECONDS)
            wire.send(sock, setup, [self._tokens.reader_fd, self._logits.fd])

    def forward(self, tokens: NDArray[np.int64]) -> None:
        if tokens.shape != self._shape:
            raise ValueError(f"batch of shape {tokens.shape}: expected {self._shape}")
        if not self._ready:  # not in the constructor: the scorer has things to do while the model loads
            self._load()
        self._logits.fill_nan()
        self._tokens.write(tokens)
        with _death_means("forward"):
            wire.send(self._sock, {"op": "forward"})
        self._expect_ok("forward")
        if not self._ready:
            self._ready = True
            now = self._work_seconds()
            if now is not None and self._loading_from is not None:
                self.first_answer_seconds = now - self._loading_from

    def _load(self) -> None:
        self._expect_ok("server_start")  # torch is imported, and nothing of the agent's has run
        self._loading_from = self._work_seconds()
        with _death_means("load"):
            wire.send(self._sock, {"op": "load"})
        self._expect_ok("load")

    def read(self, row: int, start: int, stop: int) -> NDArray[np.float32]:
        first = (row * self._shape[1] + start) * self.vocab_size
        flat = self._logits.read(first, (stop - start) * self.vocab_size)
        if flat is None:  # the server cut the file short
            raise EvaluationFailed("forward")
        return flat.reshape(stop - start, self.vocab_size)

    def close(self) -> None:
        self._sock.close()
        self._tokens.close()
        self._logits.close()

    def _expect_ok(self, code_of_death: str) -> None:
        with _death_means(code_of_death):
            answer, fds = wire.receive(self._sock, self._deadline.left())
        for fd in fds:
            os.close(fd)
        if answer.get("ok") is not True:
            code = answer.get("code")
            raise EvaluationFailed(code if code in ("load", "forward", "shape") else "forward")


@contextlib.contextmanager
def _death_means(code: str) -> Iterator[None]:
    """A server that hangs up or talks nonsense ends the evaluation with `code`; one that is silent, with a timeout."""
    try:
        yield
    except TimeoutError as error:
        raise EvaluationFailed("eval_timeout") from error
    except (OSError, ValueError) as error:
        raise EvaluationFailed(code) from error
