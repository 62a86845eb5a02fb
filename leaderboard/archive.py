"""One file of several, of which only one form is accepted: a tar archive that `tar` can read and nobody can vary.

The members and their order are fixed, headers carry nothing but name and size, nothing is compressed. So equal
contents are equal bytes on every machine, a changed byte is a changed content or no archive at all, and there is
nothing in it that an unpacker could be led astray by: a link, a device, a path, a second member of one name, a bomb.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.views import text

BLOCK = tarfile.BLOCKSIZE
MAX_BYTES = 256 << 20  # a journal of a thousand experiments has about 70 MB
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a named pipe",
}


class BadArchive(HarnessError):
    """The file is not such an archive. The message is one line; what it quotes is clean."""


def pack(members: Mapping[str, bytes]) -> bytes:
    """The archive of `members`, in their order."""
    parts = []
    for name, content in members.items():
        parts += [_header(name, len(content)), content, b"\0" * (-len(content) % BLOCK)]
    return b"".join([*parts, b"\0" * 2 * BLOCK])


def unpack(content: bytes, names: Sequence[str], others: re.Pattern[str] | None = None) -> dict[str, bytes]:
    """The members of an archive that holds some of `names`, in that order, then some named like `others`, no more.

    Raises:
        BadArchive: it is anything but what `pack` writes.
    """
    members: dict[str, bytes] = {}
    left = list(names)
    at = 0
    while content[at : at + BLOCK] != b"\0" * BLOCK:
        header = content[at : at + BLOCK]
        name, size = _read_header(header)
        is_other = others is not None and others.fullmatch(name) is not None and name not in members
        if name not in left and not is_other:
            what = "twice or out of order" if name in names else f"expected {', '.join(names)}"
            raise BadArchive(f"not a bundle: it holds {_shown(name)}, {what}")
        if header != _header(name, size):
            kind = _KINDS.get(header[156:157], "not a plain file with an empty header")
            raise BadArchive(f"not a bundle: {_shown(name)} is {kind}")
        if at + BLOCK + size > len(content):
            raise BadArchive(f"not a bundle, or cut off: {_shown(name)} claims {size:,} bytes")
        members[name] = content[at + BLOCK : at + BLOCK + size]
        left = [] if is_other else left[left.index(name) + 1 :]
        at += BLOCK + size + -size % BLOCK
    if pack(members) != content:
        raise BadArchive("not a bundle: there are bytes between or behind its files")
    return members


def read_file(path: Path) -> bytes:
    """The bytes of a regular file of bearable size.

    Raises:
        BadArchive: it is something else, too large, or cannot be read.
    """
    try:
        # A named pipe would otherwise wait for its other end.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise BadArchive(f"{path}: not a regular file; expected a bundle made by `bpbench bundle`")
            if info.st_size > MAX_BYTES:
                raise BadArchive(f"{path}: {info.st_size:,} bytes; a bundle has at most {MAX_BYTES:,}")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadArchive(f"{path}: {error.strerror}; expected a bundle made by `bpbench bundle`") from error
    if len(content) > MAX_BYTES:
        raise BadArchive(f"{path}: grew while it was read; a bundle has at most {MAX_BYTES:,} bytes")
    return content


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _read_header(header: bytes) -> tuple[str, int]:
    """Name and size as they stand there; the caller compares the whole with what they should look like."""
    if len(header) < BLOCK or header[257:262] != b"ustar":
        raise BadArchive("not a bundle, or cut off: expected a file made by `bpbench bundle`")
    name = header[:100].rstrip(b"\0").decode("ascii", "replace")
    digits = header[124:135]
    if not digits.isdigit() or header[135:136] != b"\0" or b"8" in digits or b"9" in digits:
        raise BadArchive(f"not a bundle: {_shown(name)} has no proper size")
    return name, int(digits, 8)


def _shown(name: str) -> str:
    return ascii(text.line(name, 60))
