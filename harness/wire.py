"""The harness's end of the sockets described in docs/architecture.md: JSON lines and file descriptors."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

MAX_LINE_BYTES = 64 * 1024
MAX_FDS = 16


class BadMessage(Exception):
    """The peer broke the wire format. Peers may be hostile: callers turn this into a run that failed."""


class Channel:
    """One socket. Reading never blocks longer than the socket's own timeout."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = False
        self._buffer = b""
        self._fds: list[int] = []

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Our end, and the end to hand to a child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Raises OSError when the peer is gone or does not read."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        sent = socket.send_fds(self.sock, [line], list(fds)) if fds else 0
        if sent < len(line):  # even an empty sendall fails once the peer has answered and left
            self.sock.sendall(line[sent:])

    def read(self) -> list[tuple[dict[str, Any], list[int]]]:
        """What has arrived: complete messages, each with the descriptors that came with it.

        One read of the socket. Sets `closed` at the end of the stream. Raises BadMessage.
        """
        try:
            data, fds, flags, _ = socket.recv_fds(self.sock, MAX_LINE_BYTES, MAX_FDS)
        except BlockingIOError:
            return []
        except ConnectionError:
            data, fds, flags = b"", [], 0
        self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
            self._drop_fds()
            raise BadMessage("too many file descriptors")
        if not data:
            self.closed = True
            return []
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_LINE_BYTES:
            raise BadMessage(f"a message of more than {MAX_LINE_BYTES} bytes")
        messages = [(self._parse(line), list[int]()) for line in lines]
        # A read ends behind the first bytes that carry descriptors (unix(7)), so they belong to what came last: to an
        # unfinished line, which keeps them waiting, or to the last message.
        if messages and not self._buffer:
            messages[-1][1].extend(self._fds)
            self._fds = []
        return messages

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadMessage("a message that is not JSON") from error
        if not isinstance(message, dict):
            raise BadMessage("a message that is not a JSON object")
        return message

    def receive(self, timeout_seconds: float | None = None) -> tuple[dict[str, Any], list[int]] | None:
        """The next message of a peer that answers one at a time, or None when it has closed. TimeoutError if late."""
        self.sock.settimeout(timeout_seconds)
        while not self.closed:
            if messages := self.read():
                return messages[0]
        return None

    def _drop_fds(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def close(self) -> None:
        self._drop_fds()
        self.sock.close()
