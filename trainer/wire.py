"""Messages between processes: one line of JSON over an AF_UNIX stream, with file descriptors.

The format is in docs/architecture.md. Descriptors travel with the first byte of their line (SCM_RIGHTS, unix(7)).
Nothing is buffered between calls: `receive` peeks for the end of the line and takes exactly that much, so a socket may
be handed from one reader to the next between two messages.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 4
SOCKET_VARIABLE = "BPBENCH_FD"

# Without it a descriptor is inheritable for a moment, and a child started by another thread would keep it open.
_CLOSE_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def connect(environ: Mapping[str, str] = os.environ) -> socket.socket:
    """The socket that this process was started with.

    Raises:
        ValueError: the variable is missing or not the number of an open socket.
    """
    number = environ.get(SOCKET_VARIABLE, "")
    try:
        sock = socket.socket(fileno=int(number))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{SOCKET_VARIABLE}={number!r}: expected the number of an open socket; this program is started by bpbench"
        ) from error
    sock.set_inheritable(False)
    return sock


def send(sock: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay open here.

    Raises:
        ValueError: the message is above 64 KiB.
        ConnectionError: the other side is gone.
    """
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {len(line)} bytes: expected at most {MAX_MESSAGE_BYTES}")
    sent = socket.send_fds(sock, [line], list(fds)) if fds else 0
    if sent < len(line):  # sending nothing would still fail if the other side has already answered and left
        sock.sendall(line[sent:])


def receive(sock: socket.socket, timeout: float | None = None) -> tuple[dict[str, Any], list[int]]:
    """Receive one message, with the descriptors that came with it (close-on-exec; the caller closes them).

    Args:
        timeout: seconds for the whole message, however slowly its bytes drip in; None waits for ever.

    Raises:
        TimeoutError: not complete in time. The stream is then of no further use.
        ConnectionError: the other side closed.
        ValueError: no JSON object, too long, or with too many descriptors.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    fds: list[int] = []
    before = sock.gettimeout()
    try:
        line = _read_line(sock, deadline, fds)
        return _parse(line), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    finally:
        with contextlib.suppress(OSError):  # closed by another thread while we waited
            sock.settimeout(before)


def _read_line(sock: socket.socket, deadline: float | None, fds: list[int]) -> bytes:
    line = bytearray()
    while True:
        _set_deadline(sock, deadline)
        ahead = sock.recv(MAX_MESSAGE_BYTES + 1 - len(line), socket.MSG_PEEK)
        if not ahead:
            raise ConnectionError("the other side closed the connection")
        size = ahead.find(b"\n") + 1
        line += _take(sock, size or len(ahead), fds)
        if line.endswith(b"\n"):
            return bytes(line)
        if len(line) > MAX_MESSAGE_BYTES:
            raise ValueError(f"message above {MAX_MESSAGE_BYTES} bytes")


def _set_deadline(sock: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        sock.settimeout(None)
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no complete message in time")
    sock.settimeout(left)


def _take(sock: socket.socket, size: int, fds: list[int]) -> bytes:
    """Take up to `size` bytes; descriptors are appended to `fds` at once, so that no error can leak them."""
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(size, space, _CLOSE_ON_EXEC)
    fds.extend(_descriptors(ancillary))
    if flags & socket.MSG_CTRUNC or len(fds) > MAX_DESCRIPTORS:
        raise ValueError(f"message with more than {MAX_DESCRIPTORS} descriptors")
    return data


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            for fd in numbers:
                os.set_inheritable(fd, False)
                yield fd


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except RecursionError as error:  # not a ValueError: thousands of opening brackets
        raise ValueError("message is nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError(f"message is a {type(message).__name__}: expected a JSON object")
    return message
