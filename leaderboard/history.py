"""The session's git history, computed from its journal: what `git clone workspace.bundle` gives.

Objects and their ids follow from the journal alone, so a checker needs no git and hands none of a stranger's bytes to
it. Nothing is compressed (stored deflate blocks): how well a library packs is no part of the record.

Formats: gitformat-bundle(5) and gitformat-pack(5).
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from harness.commits import message
from harness.records import SessionState
from harness.workspace import BRANCH, EXPERIMENTS, FILE, SAFE_GIT

Kind = Literal["commit", "tree", "blob"]
_PACK_TYPES: dict[Kind, int] = {"commit": 1, "tree": 2, "blob": 3}
_STORED_BLOCK = 0xFFFF  # bytes in a stored deflate block


@dataclass
class History:
    """Objects by id, and what points at them."""

    objects: dict[str, tuple[Kind, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def add(self, kind: Kind, content: bytes) -> str:
        name = hashlib.sha1(b"%s %d\0" % (kind.encode(), len(content)) + content).hexdigest()
        self.objects[name] = (kind, content)
        return name

    def commit(self, source: str, text: str, parent: str | None, time: float) -> str:
        blob = self.add("blob", source.encode())
        tree = self.add("tree", b"100644 %s\0" % FILE.encode() + bytes.fromhex(blob))
        who = f"{SAFE_GIT['GIT_AUTHOR_NAME']} <{SAFE_GIT['GIT_AUTHOR_EMAIL']}> {int(time)} +0000"
        lines = [f"tree {tree}", *([f"parent {parent}"] if parent else []), f"author {who}", f"committer {who}"]
        return self.add("commit", ("\n".join(lines) + "\n\n" + text).encode())


def history(state: SessionState) -> History:
    """Every commit of the session, as harness/workspace.py makes them: `main` and a ref for each experiment."""
    made = History()
    tip = made.commit(str(state.opened["stock_source"]), "Stock train.py", None, state.opened_at or 0.0)
    for item in state.experiments:
        if item.kept is None or item.source is None:
            continue
        commit = made.commit(item.source, message(item), tip, item.proposed_at or 0.0)
        made.refs[f"{EXPERIMENTS}{item.index:04d}"] = commit
        if item.kept:
            tip = commit
    made.refs = {BRANCH: tip, **made.refs}
    return made


def git_bundle(made: History) -> bytes:
    """`made` as a file that `git clone` and `git fetch` read."""
    lines = [f"{commit} {ref}" for ref, commit in made.refs.items()]
    head = "\n".join(["# v2 git bundle", f"{made.refs[BRANCH]} HEAD", *lines]) + "\n\n"
    pack = b"PACK" + struct.pack(">II", 2, len(made.objects)) + b"".join(_entries(made))
    return head.encode() + pack + hashlib.sha1(pack).digest()


def _entries(made: History) -> Iterator[bytes]:
    for kind, content in made.objects.values():
        yield _entry_header(_PACK_TYPES[kind], len(content)) + stored(content)


def _entry_header(kind: int, size: int) -> bytes:
    """Type and size, four bits and then seven in each byte."""
    byte, size = kind << 4 | size & 0xF, size >> 4
    header = bytearray()
    while size:
        header.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    return bytes([*header, byte])


def stored(content: bytes) -> bytes:
    """A zlib stream (RFC 1950, 1951) of blocks that are not compressed."""
    blocks = [content[at : at + _STORED_BLOCK] for at in range(0, len(content), _STORED_BLOCK)] or [b""]
    parts = [b"\x78\x01"]
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join([*parts, struct.pack(">I", zlib.adler32(content))])
