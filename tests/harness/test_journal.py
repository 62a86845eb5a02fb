from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.errors import JournalError
from harness.journal import GENESIS, Journal, canonical, read, verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "a-session"
    folder.mkdir()
    return folder / "journal.jsonl"


def fill(path: Path, num: int = 4) -> None:
    with Journal.create(path, clock=lambda: 1000.25) as journal:
        for number in range(num):
            journal.append("incident", text=f"number {number}", values=[1.5, None, "ü"])


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_appended_records_are_read_back_equal_and_chained(path: Path) -> None:
    with Journal.create(path, clock=lambda: 1000.25) as journal:
        written = [journal.append("a", pair=(1, 2)), journal.append("b", text="\ud800 \u2028")]
    assert verify(path) == written
    assert written[0].data == {"pair": [1, 2]}
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["prev"] for line in lines] == [GENESIS, written[0].hash]
    assert [(line["seq"], line["time"]) for line in lines] == [(0, 1000.25), (1, 1000.25)]


def test_a_journal_continues_after_reopening(path: Path) -> None:
    fill(path, 2)
    journal, records = Journal.open(path)
    with journal:
        assert journal.recovered is None
        third = journal.append("c")
    assert (third.seq, verify(path)[:2]) == (2, records)


def test_a_last_line_cut_anywhere_is_dropped_and_kept_beside(path: Path) -> None:
    fill(path)
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    torn = path.with_name("journal.jsonl.torn")
    for end in (start + 1, *range(start + 2, len(whole) - 1, 23), len(whole) - 1):
        path.write_bytes(whole[:end])
        torn.unlink(missing_ok=True)
        assert len(read(path)[0]) == 3
        with pytest.raises(JournalError, match="line 4 is unfinished"):
            verify(path)
        journal, records = Journal.open(path)
        with journal:
            assert len(records) == 3 and "line 4 is unfinished" in str(journal.recovered)
            journal.append("after")
        assert len(verify(path)) == 4
        assert torn.read_bytes() == whole[start:end] + b"\n"


def test_a_last_line_with_a_page_of_zeros_counts_as_unfinished(path: Path) -> None:
    fill(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + b"\0" * 39 + b"\n")
    journal, records = Journal.open(path)
    journal.close()
    assert len(records) == 3


def test_a_journal_cut_before_its_first_record_is_empty(path: Path) -> None:
    Journal.create(path).close()
    path.write_bytes(b'{"da')
    journal, records = Journal.open(path)
    with journal:
        assert records == [] and journal.append("session_open").seq == 0


@pytest.mark.parametrize("position", [0, 10, 60, 200, -2])
@pytest.mark.parametrize("line", [0, 1, 3])
def test_a_changed_byte_is_found_and_its_line_named(path: Path, line: int, position: int) -> None:
    fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = bytearray(lines[line])
    changed[position] ^= 1
    lines[line] = bytes(changed)
    path.write_bytes(b"".join(lines))
    for reader in (read, verify, Journal.open):
        with pytest.raises(JournalError, match=f"damaged in line {line + 1}"):
            reader(path)


@pytest.mark.parametrize("order", [[0, 2, 3], [1, 0, 2, 3], [0, 1, 1, 2], [1, 2, 3]])
def test_missing_repeated_and_reordered_lines_are_found(path: Path, order: list[int]) -> None:
    fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[number] for number in order))
    with pytest.raises(JournalError, match="does not follow the line before"):
        verify(path)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"seq":NaN}',
        b"1" * 5000,
        b"\xff\xfe",
        canonical({"seq": 0, "time": 1.0, "type": "a", "data": {}, "prev": GENESIS}),
    ],
)
def test_lines_that_are_no_records_are_refused(path: Path, line: bytes) -> None:
    path.write_bytes(line + b"\n")
    with pytest.raises(JournalError, match="damaged in line 1"):
        verify(path)


def test_one_record_has_one_spelling(path: Path) -> None:
    fill(path, 1)
    path.write_bytes(path.read_bytes().replace(b'{"data"', b'{"data":{},"data"', 1))
    with pytest.raises(JournalError, match="damaged in line 1"):
        verify(path)


def test_values_without_a_json_form_are_not_written(path: Path) -> None:
    with Journal.create(path) as journal:
        with pytest.raises(ValueError, match="JSON compliant"):
            journal.append("a", loss=float("nan"))
        with pytest.raises(TypeError):
            journal.append("a", path=path)
        journal.append("b")
    assert [record.seq for record in verify(path)] == [0]


def test_two_processes_never_write_one_journal(path: Path) -> None:
    with Journal.create(path):
        code = """
            import pathlib, sys
            from harness.errors import JournalError
            from harness.journal import Journal
            try:
                Journal.open(pathlib.Path(sys.argv[1]))
            except JournalError as error:
                print(error)
        """
        assert "session a-session is already running" in python(code, str(path)).stdout
        with pytest.raises(JournalError, match="already running"):
            Journal.open(path)
    Journal.open(path)[0].close()


def test_a_child_process_does_not_inherit_the_lock(path: Path) -> None:
    journal = Journal.create(path)
    child = subprocess.Popen(["sleep", "30"])
    try:
        journal.close()
        Journal.open(path)[0].close()
    finally:
        child.kill()
        child.wait()


def test_existing_and_missing_journals_are_named(path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot open .*journal\.jsonl \(No such file"):
        Journal.open(path)
    with pytest.raises(JournalError, match="No such file"):
        read(path)
    fill(path)
    with pytest.raises(JournalError, match="exists already: continue it with `bpbench resume"):
        Journal.create(path)


def test_a_full_disk_leaves_whole_lines_and_says_how_to_go_on(path: Path) -> None:
    """RLIMIT_FSIZE lets the line's first part through and refuses the rest, as a disk that fills up does."""
    code = """
        import pathlib, resource, signal, sys
        from harness.errors import JournalError
        from harness.journal import Journal, verify
        path = pathlib.Path(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Journal.create(path) as journal:
            journal.append("a", text="x" * 500)
            good = path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (good + 300, resource.RLIM_INFINITY))
            try:
                journal.append("b", text="y" * 500)
            except JournalError as error:
                print(error)
            assert path.stat().st_size == good
            assert len(verify(path)) == 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert journal.append("b", text="y" * 500).seq == 1
        assert len(verify(path)) == 2
    """
    words = python(code, str(path)).stdout
    assert "File too large" in words and f"free space or mend the disk, then `bpbench resume {path.parent}`" in words


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_journal_that_cannot_be_mended_refuses_every_later_record(path: Path) -> None:
    path.write_bytes(b"")
    journal = Journal(path, os.open("/dev/full", os.O_WRONLY), clock=lambda: 0.0, last=None, recovered=None)
    with journal:
        with pytest.raises(JournalError, match="No space left on device"):
            journal.append("a")
        with pytest.raises(JournalError, match="could not be written before"):
            journal.append("a")
