"""Memory shared with a model server.

Anonymous files whose size is sealed where the system can (memfd_create(2), Linux), unlinked temporary files elsewhere.
The trusted side never maps what the server can write: it uses pread, which copies, and answers a file that was cut
short with fewer bytes instead of a SIGBUS.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sys
import tempfile

import numpy as np
from numpy.typing import NDArray

_F_SEAL_FUTURE_WRITE = 0x0010  # linux/fcntl.h, since 5.1; not in Python's fcntl
_NAN_BLOCK = np.full(1 << 18, np.nan, np.float32)


class InputBuffer:
    """Tokens: written here, read-only for the server."""

    def __init__(self, num_bytes: int) -> None:
        fd, self.reader_fd = _anonymous_pair(num_bytes)
        self._map = mmap.mmap(fd, num_bytes)
        if sys.platform == "linux":
            # After our own mapping: it stays writable, all later ones are not, even through a descriptor reopened.
            with contextlib.suppress(OSError):  # kernels before 5.1
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
            _seal_size(fd)
        os.close(fd)

    def write(self, tokens: NDArray[np.int64]) -> None:
        self._map[:] = tokens.tobytes()

    def close(self) -> None:
        self._map.close()
        os.close(self.reader_fd)


class OutputBuffer:
    """Logits: `num_floats` of float32, written by the server."""

    def __init__(self, num_floats: int) -> None:
        self._num_bytes = num_floats * 4
        self.fd, reader_fd = _anonymous_pair(self._num_bytes)
        os.close(reader_fd)
        if sys.platform == "linux":
            _seal_size(self.fd)

    def fill_nan(self) -> None:
        """So that what the server leaves out is not a number, rather than the last batch's answer."""
        block = memoryview(_NAN_BLOCK.data).cast("B")
        for start in range(0, self._num_bytes, len(block)):
            os.pwrite(self.fd, block[: self._num_bytes - start], start)

    def read(self, first: int, count: int) -> NDArray[np.float32] | None:
        """A private copy of floats [first, first + count), or None if the file is shorter than that."""
        floats = np.empty(count, np.float32)
        rest, offset = memoryview(floats.data).cast("B"), first * 4
        while rest:
            size = os.preadv(self.fd, [rest], offset)
            if size == 0:
                return None
            rest, offset = rest[size:], offset + size
        return floats

    def close(self) -> None:
        os.close(self.fd)


def _anonymous_pair(num_bytes: int) -> tuple[int, int]:
    """A file of zeros without a name, open for reading and writing, and again for reading only."""
    if sys.platform == "linux":
        fd = os.memfd_create("bpbench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    else:
        fd, path = tempfile.mkstemp()
        reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.unlink(path)  # noqa: PTH108
    os.ftruncate(fd, num_bytes)
    return fd, reader


def _seal_size(fd: int) -> None:
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
