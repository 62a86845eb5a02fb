"""The experiment service: how a program that is no part of bpbench (a coding agent) drives a session.

It listens on a UNIX socket in a folder of its own. A request is one line of JSON, `{"op": ..., ...}`, and so is its
answer, `{"text": ...}` or `{"error": ...}`. Requests wait in line until the session's own thread takes them, so that
limits are kept in one place and nothing runs at the same time as an experiment. Who closes the connection has gone:
what it asked for is not begun, since nobody would read the answer.
"""

from __future__ import annotations

import json
import queue
import socket
import socketserver
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

MAX_LINE_BYTES = 4 << 20
MAX_WAITING = 64  # requests in line; a program that floods is told so
_MAX_SOCKET_PATH = 100  # the operating system's limit is 104 to 108 bytes


@dataclass(frozen=True)
class Asked:
    """One request that waits for its answer."""

    op: str
    arguments: Mapping[str, Any]
    asker: socket.socket = field(repr=False)
    asked_at: float = field(default_factory=time.monotonic)
    _answer: queue.SimpleQueue[dict[str, Any]] = field(default_factory=queue.SimpleQueue, repr=False)

    def answer(self, text: str) -> None:
        self._answer.put({"text": text})

    def refuse(self, error: str) -> None:
        self._answer.put({"error": error})

    def abandoned(self) -> bool:
        """Whether nobody is left at the other end of the connection."""
        try:
            return self.asker.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


class Service:
    """Listens until closed. Requests are taken with `next`, each must be answered or refused."""

    def __init__(self, path: Path) -> None:
        if len(str(path).encode()) > _MAX_SOCKET_PATH:
            raise HarnessError(f"{path}: too long a path for a socket; choose a shorter session.root")
        path.unlink(missing_ok=True)
        self.path = path
        self._waiting: queue.Queue[Asked] = queue.Queue(MAX_WAITING)
        self._server = _Server(str(path), _Handler)
        self._server.service = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def next(self, timeout_seconds: float) -> Asked | None:
        """The next request whose asker still waits; None when none came in time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                asked = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if not asked.abandoned():
                return asked
            asked.refuse("nobody waits for this any more")  # ends the connection's thread

    def handle(self, line: bytes, asker: socket.socket) -> dict[str, Any]:
        """Wait in line for the answer to one request; called on the connection's thread."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "a request is one line of JSON"}
        if not isinstance(request, dict) or not isinstance(request.get("op"), str):
            return {"error": "a request is an object with the string op"}
        asked = Asked(request["op"], request, asker)
        try:
            self._waiting.put_nowait(asked)
        except queue.Full:
            return {"error": f"{MAX_WAITING} requests wait already"}
        return asked._answer.get()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        while (asked := self.next(0.0)) is not None:
            asked.refuse("the session is over")
        self.path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = MAX_WAITING  # an agent may ask many things at once, and a refused connection is a lost call
    daemon_threads = True
    block_on_close = False
    service: Service

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A program that left is no news."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while line := self.rfile.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                self._send({"error": f"more than {MAX_LINE_BYTES} bytes in a line"})
                return
            self._send(self.server.service.handle(line, self.connection))

    def _send(self, answer: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(answer).encode() + b"\n")
        self.wfile.flush()
