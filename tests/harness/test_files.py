"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path

import pytest

from harness.errors import HarnessError, JournalError
from harness.files import locked, write_atomically
from harness.views.files import write_view


def test_a_file_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    for content in ("one", b"two", "\udcffthree"):
        assert write_atomically(path, content) == path
    assert path.read_bytes() == b"?three" and list(tmp_path.iterdir()) == [path]


def full(path: Path) -> None:
    """In a process of its own, as on a disk with ten bytes left."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
    with pytest.raises(HarnessError, match=r"cannot write .*file.json \(.+\): see to its folder, .*space left$"):
        write_atomically(path, "x" * 100)
    with pytest.raises(JournalError, match=r"the journal is safe, `bpbench show .*` reads it$"):
        write_view(path, "x" * 100)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "file.json", "old")
    child = multiprocessing.get_context("fork").Process(target=full, args=(path,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def count(path: Path) -> None:
    for _ in range(50):
        with locked(path):
            write_atomically(path, str(int(path.read_text()) + 1))


def test_two_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "count.json", "0")
    writers = [multiprocessing.get_context("fork").Process(target=count, args=(path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() == "100"
