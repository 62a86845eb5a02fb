"""Submitting: all entries or none, and nothing that the check would refuse; and the commands around it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import publishing
import pytest
from doctored import data, lines_of

from harness.errors import ConfigError, HarnessError
from harness.journal import read
from leaderboard import cli, entry, scan, submit
from leaderboard.check import check
from leaderboard.submit import Prepared, Wish

ANN = Wish("Ann", "https://example.org/ann", None, "two cores")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("bundles")
    return [publishing.packed(root, seed) for seed in (0, 1, 2)]


def prepared(folder: Path, sources: list[Path], wish: Wish = ANN) -> list[Prepared]:
    folder.mkdir(exist_ok=True)
    return submit.prepare(sources, wish, looked_at(folder), publishing.TODAY, publishing.boards())


def looked_at(folder: Path) -> scan.Scan:
    return scan.scan(folder, folder.parent / "cache", frozenset(), publishing.boards())


def test_what_is_submitted_passes_the_check(bundles: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "entries"
    made = prepared(folder, bundles[:2])
    assert not any(folder.iterdir())
    written = submit.write(made, folder)
    assert sorted(written) == sorted(folder.iterdir()) and len(written) == 4
    assert check(folder, cache=tmp_path, reproducers=frozenset(), boards=publishing.boards()).problems == ()
    first = next(session for session in looked_at(folder).sessions if "-s0-" in session.name)
    assert (first.submitted_by, first.link, first.note, first.submitted_on) == (
        "Ann",
        "https://example.org/ann",
        "two cores",
        "2026-01-02",
    )
    with pytest.raises(ConfigError, match="already; each is submitted once"):
        prepared(folder, bundles[:1])


def test_a_session_that_was_chained_again_is_not_submitted_twice(bundles: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "entries"
    submit.write(prepared(folder, bundles[:1]), folder)
    lines = lines_of(read(bundles[0].parent / "session0" / "journal.jsonl")[0])
    data(lines, "session_open")["packages"].update(other="1")
    with pytest.raises(ConfigError, match=r"this session is demo-random-s0-.* already"):
        prepared(folder, [publishing.repacked(lines, tmp_path / "again.bundle.tar")])


def test_missing_seeds_are_told(bundles: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "entries"
    made = prepared(folder, [bundles[0], bundles[2]])
    (warning,) = submit.warnings(made, looked_at(folder))
    assert "there is no seed 1" in warning
    assert submit.warnings(prepared(folder, bundles), looked_at(folder)) == []


def test_nothing_half_done_stays(bundles: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "entries"
    made = prepared(folder, bundles[:2])
    in_the_way = folder / f"{made[1].name}{entry.SUFFIX}"
    in_the_way.mkdir()
    with pytest.raises(HarnessError):
        submit.write(made, folder)
    assert list(folder.iterdir()) == [in_the_way]


def test_a_bundle_that_changes_meanwhile_is_not_written(bundles: list[Path], tmp_path: Path) -> None:
    copy = Path(shutil.copy(bundles[0], tmp_path / "a.bundle.tar"))
    made = prepared(tmp_path / "entries", [copy])
    copy.write_bytes(b"other")
    with pytest.raises(HarnessError, match="changed while it was looked at"):
        submit.write(made, tmp_path / "entries")
    assert not any((tmp_path / "entries").iterdir())


def inconsistent(lines: Any) -> None:
    data(lines, "confirmed")["mean_bpb"] += 0.1


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "inconsistent": (inconsistent, "is not consistent: see `bpbench verify"),
    "unclosed": (lambda lines: lines.pop(), "cannot be ranked: it is unfinished"),
    "of another version": (lambda lines: data(lines, "session_open")["key"].update(protocol=1), "under version 1 of"),
    "unranked": (lambda lines: data(lines, "session_open").update(unranked=["no clock"]), "cannot be ranked: no clock"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_check_would_refuse_is_refused(bundles: list[Path], tmp_path: Path, case: str) -> None:
    change, expected = REFUSED[case]
    lines = lines_of(read(bundles[0].parent / "session0" / "journal.jsonl")[0])
    change(lines)
    bad = publishing.repacked(lines, tmp_path / "bad.bundle.tar")
    with pytest.raises(HarnessError, match=expected):
        prepared(tmp_path / "entries", [bundles[1], bad])
    assert not any((tmp_path / "entries").iterdir())


def test_the_same_twice_is_refused(bundles: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="each is submitted once"):
        prepared(tmp_path / "entries", [bundles[0], bundles[0]])


def test_a_withdrawn_session_does_not_come_back(bundles: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "entries"
    (made,) = prepared(folder, bundles[:1])
    (folder / "withdrawn.txt").write_text(f"{made.name} overheated\n")
    with pytest.raises(ConfigError, match="or was withdrawn"):
        prepared(folder, bundles[:1])


def test_bundles_elsewhere(bundles: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "entries"
    with pytest.raises(ConfigError, match="give a folder, ending in /"):
        prepared(folder, bundles[:2], Wish("Ann", None, "https://example.org/a.tar", ""))
    with pytest.raises(ConfigError, match="expected https"):
        prepared(folder, bundles[:1], Wish("Ann", None, "http://example.org/a.tar", ""))
    made = prepared(folder, bundles[:2], Wish("Ann", None, "https://example.org/v1/", ""))
    assert made[0].entry.url == f"https://example.org/v1/{made[0].name}.bundle.tar"
    assert [path.suffix for path in submit.write(made, folder)] == [".json", ".json"]


def test_the_commands(
    bundles: list[Path],
    bpbench_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From bundles to a table, as a user types it."""
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "entries"
    folder.mkdir()
    ours = ["--official", str(publishing.official_file(tmp_path))]
    where = ["--entries", str(folder), *ours]
    assert cli.main(["submit", str(bundles[1]), "--by", "Ann", *where]) == 0
    shown = capsys.readouterr().out
    assert "there is no seed 0" in shown and "git add" in shown and "bpbench check" in shown
    assert "put it into `account` in that .json file" in shown
    assert cli.main(["check", str(folder), *ours]) == cli.cli.EXIT_ERROR
    told = capsys.readouterr().err
    assert "there is no seed 0" in told and all(line.startswith("- ") for line in told.splitlines())
    assert cli.main(["submit", str(bundles[0]), "--by", "Ann", "--note", "x", *where]) == 0
    assert cli.main(["check", str(folder), "--base", str(folder), *ours]) == 0
    assert "2 entries, 0 reproductions: all is well" in capsys.readouterr().out
    assert cli.main(["leaderboard", str(folder), *ours]) == 0
    shown = capsys.readouterr().out
    assert "No row is reproduced yet" in shown and "random" not in shown
    target = tmp_path / "board.json"
    assert cli.main(["leaderboard", str(folder), "--all", "--task", "demo", "--json", str(target), *ours]) == 0
    shown = capsys.readouterr().out
    assert "random" in shown and "consistent" in shown and max(map(len, shown.splitlines())) <= 80
    assert '"tier": "consistent"' in target.read_text()
    assert cli.main(["leaderboard", str(folder), "--task", "nano", *ours]) == cli.cli.EXIT_USAGE
    publishing.reproduced(bundles[0], tmp_path / "reproduction")
    assert cli.main(["attest", str(tmp_path / "reproduction"), "--by", "nobody-here", *where]) == cli.cli.EXIT_USAGE
    assert "not on the list of reproducers" in capsys.readouterr().err
    (tmp_path / "reproducers.txt").write_text("ann\n")
    listing = ["--reproducers", str(tmp_path / "reproducers.txt")]
    assert cli.main(["attest", str(tmp_path / "reproduction"), "--by", "ann", *where, *listing]) == 0
    assert cli.main(["check", str(folder), *ours]) == 0  # by nobody whom our own list has
    assert "ann is not on the list of reproducers, so it counts for nothing" in capsys.readouterr().out
    assert cli.main(["check", str(folder), *ours, *listing]) == 0
    assert "2 entries, 1 reproduction: all is well" in capsys.readouterr().out
    assert cli.main(["leaderboard", str(folder), *ours, *listing]) == 0
    assert "random" in capsys.readouterr().out
    assert cli.main(["submit", str(bundles[0]), "--by", "Ann", "--entries", str(tmp_path / "no")]) == cli.cli.EXIT_USAGE
    assert cli.main(["check", str(folder)]) == cli.cli.EXIT_ERROR  # our own list has no such board
    assert "its key is no official board" in capsys.readouterr().err
    assert cli.main(["check", str(folder), "--author", "ann", *ours]) == cli.cli.EXIT_USAGE
    assert "give --base" in capsys.readouterr().err


def test_a_folder_of_entries_is_a_folder_of_bundles(bundles: list[Path], tmp_path: Path) -> None:
    """`bpbench reproduce --all` takes it as it is."""
    from leaderboard.reproduce import bundles_in

    submit.write(prepared(tmp_path / "entries", bundles), tmp_path / "entries")
    told: list[str] = []
    found = bundles_in(tmp_path / "entries", told.append)
    assert len(found) == 3 and told == []
    found[0].unlink()
    assert bundles_in(tmp_path / "entries", told.append) == found[1:]
    assert told == [
        "1 entry's bundle lies elsewhere: `bpbench check --download` fetches them, docs/leaderboard.md says where to"
    ]


def test_who_submits_is_asked_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    nobody = Wish("", None, None, "")
    with pytest.raises(ConfigError, match="give --by NAME"):
        submit.with_default_name(nobody)
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Ann\n")
    assert submit.with_default_name(nobody).by == "Ann"
    assert submit.with_default_name(ANN) is ANN
