"""The data gate: what a run may see, and when.

The training tokens are handed over at start() and not before; the clock starts in the same moment. Everything that a
child receives is an anonymous file it cannot change: with a plain descriptor a child reopened /proc/self/fd/N for
writing and altered the host's file. On Linux these are sealed memory files, reopened read-only.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LINUX = sys.platform.startswith("linux")
F_SEAL_FUTURE_WRITE = 0x0010  # linux/fcntl.h; Python names it from 3.13 on
MAX_SPANS = 1024  # IOV_MAX
PIECE_BYTES = 32 << 20  # of a snapshot, copied in some hundredths of a second


class SnapshotRefused(Exception):
    """What the child sent is not an acceptable snapshot."""


_names: dict[int, Path] = {}  # of the files below, where there are no memory files: until their context ends


@contextlib.contextmanager
def anonymous_file(name: str) -> Iterator[int]:
    if LINUX:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        fd, path = tempfile.mkstemp(prefix=name)
        _names[fd] = Path(path)
    try:
        yield fd
    finally:
        if not LINUX:
            _names.pop(fd).unlink()
        os.close(fd)


def read_only(fd: int) -> int:
    """A new, read-only descriptor of an anonymous file."""
    if not LINUX:
        return os.open(_names[fd], os.O_RDONLY | os.O_CLOEXEC)  # a copy of `fd` could be written to
    os.fchmod(fd, 0o400)
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def seal(fd: int) -> None:
    """Nobody changes this anonymous file any more, whatever descriptor they have of it."""
    if LINUX:
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def token_stream(data_dir: Path, dtype: str, seed: int) -> tuple[int, int]:
    """The training tokens with their documents permuted by `seed`: (read-only descriptor, number of tokens).

    The harness permutes, not the trainer, so code that fixes a lucky seed of its own still meets fresh noise.
    """
    tokens = np.memmap(data_dir / "train.bin", dtype=dtype, mode="r")
    offsets = np.load(data_dir / "train.offsets.npy")
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(offsets) - 1)
    raw = memoryview(tokens.view(np.uint8))  # type: ignore[arg-type]  # numpy arrays are buffers
    starts, ends = offsets[:-1] * tokens.itemsize, offsets[1:] * tokens.itemsize
    with anonymous_file("tokens") as fd:
        for first in range(0, len(order), MAX_SPANS):
            spans = [raw[starts[i] : ends[i]] for i in order[first : first + MAX_SPANS]]
            if os.writev(fd, spans) != sum(map(len, spans)):
                raise OSError("short write of the token stream: not enough memory")
        seal(fd)
        if not LINUX:
            os.fsync(fd)  # macOS writes a file out when Python maps it, which would be on the run's clock
        return read_only(fd), len(tokens)


def token_dtype(vocab_size: int) -> str:
    return "uint16" if vocab_size < 1 << 16 else "uint32"  # as trainer/data/windows.py writes them


class ProgressPage:
    """64 bytes that tell the child how much of its budget is used; layout in docs/architecture.md."""

    SIZE = 64

    def __init__(self, ticks_total: int) -> None:
        self.ticks_total = ticks_total
        self.version = 0
        with anonymous_file("progress") as fd:
            os.ftruncate(fd, self.SIZE)
            # Map before sealing: FUTURE_WRITE forbids every later writable mapping, also the child's.
            self.page = mmap.mmap(fd, self.SIZE)
            self.set(0.0, 0.0, 0.0)
            if LINUX:
                seals = F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            self.fd = read_only(fd)

    def set(self, base_progress: float, base_time: float, rate: float) -> None:
        self.version += 2
        struct.pack_into("<Q", self.page, 0, self.version - 1)
        struct.pack_into("<dddQ", self.page, 8, base_progress, base_time, rate, self.ticks_total)
        struct.pack_into("<Q", self.page, 0, self.version)

    def close(self) -> None:
        os.close(self.fd)
        self.page.close()


def copy_snapshot(fd: int, target: Path, max_bytes: int, between: Callable[[], None]) -> int:
    """Copy a received snapshot to `target`; its size in bytes. Raises SnapshotRefused.

    The caller stamps the time after this returns: what counts is what had arrived *and was copied*. It may take long:
    `between` is called after each piece.
    """
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise SnapshotRefused("a snapshot must be sent as an anonymous regular file")
    if not 8 < info.st_size <= max_bytes:
        raise SnapshotRefused(f"a snapshot of {info.st_size} bytes: expected at most {max_bytes}")
    if LINUX:
        try:
            if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE == 0:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        except OSError as error:
            # EINVAL: not a memory file. EBUSY: a writable mapping is alive. EPERM: sealed against sealing.
            raise SnapshotRefused("a snapshot must be a sealable memory file without writable mappings") from error
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        offset = 0
        while offset < info.st_size:
            piece = min(PIECE_BYTES, info.st_size - offset)
            sent = os.sendfile(file.fileno(), fd, offset, piece) if LINUX else _copy(file, fd, offset)
            if sent == 0:
                raise SnapshotRefused("the snapshot shrank while it was copied")
            offset += sent
            between()
    partial.replace(target)
    return info.st_size


def _copy(file: object, fd: int, offset: int) -> int:
    return os.pwrite(file.fileno(), os.pread(fd, 1 << 20, offset), offset)  # type: ignore[attr-defined]
