"""What an archive may be, and everything else that a stranger might send."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from leaderboard.archive import BadArchive, pack, read_file, unpack

NAMES = ("a.json", "b.jsonl", "c.bundle")
MEMBERS = {"a.json": b"{}\n", "b.jsonl": b"x" * 1000, "c.bundle": b""}


def tar(*infos: tuple[tarfile.TarInfo, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=format) as archive:
        for info, content in infos:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def member(name: str, content: bytes = b"{}\n", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b"0" * 10_000_000)
    return target.getvalue()


def resized(size: bytes) -> bytes:
    content = bytearray(pack(MEMBERS))
    content[124:136] = size
    return bytes(content)


HOSTILE = {
    "nothing": b"",
    "text": b"hello\n",
    "zeros": b"\0" * 512,
    "half": pack(MEMBERS)[:700],
    "cut in a header": pack(MEMBERS)[:300],
    "one byte more": pack(MEMBERS) + b"\0",
    "a block more": pack(MEMBERS) + b"\0" * 512,
    "usual padding": pack(MEMBERS) + b"\0" * (10_240 - len(pack(MEMBERS)) % 10_240),
    "bytes in the padding": pack(MEMBERS)[:520] + b"!" + pack(MEMBERS)[521:],
    "zip bomb": zipped(),
    "compressed": gzip.compress(pack(MEMBERS)),
    "tar bomb": gzip.compress(b"\0" * 1_000_000),
    "above": tar(member("../../etc/passwd")),
    "absolute": tar(member("/etc/passwd")),
    "dotted": tar(member("./a.json")),
    "script": tar(member("<script>alert(1)</script>")),
    "escapes": tar(member("\x1b]0;title\x07.json")),
    "longer than a header": tar(member("x" * 300), format=tarfile.GNU_FORMAT),
    "extended header": tar(member("a.json", pax_headers={"path": "../x"}), format=tarfile.PAX_FORMAT),
    "symbolic link": tar(member("a.json", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard link": tar(member("a.json", b"", type=tarfile.LNKTYPE, linkname="b.jsonl")),
    "device": tar(member("a.json", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "block device": tar(member("a.json", b"", type=tarfile.BLKTYPE)),
    "pipe": tar(member("a.json", b"", type=tarfile.FIFOTYPE)),
    "folder": tar(member("a.json", b"", type=tarfile.DIRTYPE)),
    "sparse": tar(member("a.json", b"", type=tarfile.GNUTYPE_SPARSE)),
    "twice": tar(member("a.json"), member("a.json")),
    "out of order": pack({"b.jsonl": b"1", "a.json": b"2"}),
    "owner": tar(member("a.json", uid=1000, uname="root")),
    "mode": tar(member("a.json", mode=0o4755)),
    "time": tar(member("a.json", mtime=1)),
    "huge": resized(b"77777777777\0"),
    "negative": resized(b"-0000000001\0"),
    "no number": resized(b"            "),
    "base 256": resized(b"\x80" + b"\0" * 10 + b"\x05"),
    "no octal": resized(b"00000000099\0"),
}


def test_what_was_packed_is_what_comes_out() -> None:
    assert unpack(pack(MEMBERS), NAMES) == MEMBERS
    assert unpack(pack({"b.jsonl": b"1"}), NAMES) == {"b.jsonl": b"1"}


def test_tar_reads_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(MEMBERS))) as archive:
        assert archive.getnames() == list(NAMES)
        assert {info.mode for info in archive} == {0o644} and {info.mtime for info in archive} == {0}


@pytest.mark.parametrize("name", HOSTILE)
def test_everything_else_is_refused_in_one_clean_line(name: str) -> None:
    with pytest.raises(BadArchive) as refusal:
        unpack(HOSTILE[name], NAMES)
    line = str(refusal.value)
    assert line.startswith("not a bundle") and line.isprintable() and len(line) < 300


def test_only_regular_files_of_bearable_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", tmp_path / "huge", Path("/dev/zero")):
        with pytest.raises(BadArchive, match=path.name):
            read_file(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["huge", "pipe"]
