"""A folder of entries as a pull request brings it: what is accepted, and what is named with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import publishing
import pytest
from doctored import Lines, data, lines_of

from harness.errors import ConfigError, HarnessError
from harness.journal import read
from leaderboard import bundle, entry, official, published
from leaderboard.check import Checked, check
from leaderboard.paths import ENTRIES, OFFICIAL, REPRODUCERS
from leaderboard.published import Category, Collection, Tier
from leaderboard.retrained import listed
from leaderboard.scan import cached

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("bundles")
    return [publishing.packed(root, seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def good(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of one researcher, seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("good") / "entries"
    for path in bundles[:2]:
        publishing.publish(folder, path)
    (folder / "withdrawn.txt").write_text("# Entries that were taken back\n")
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(good, tmp_path / "entries"))


def looked_at(folder: Path, base: Path | None = None, **options: Any) -> Checked:
    known = {"reproducers": frozenset({"ann"}), "boards": publishing.boards(), **options}
    return check(folder, cache=folder.parent / "cache", base=base, **known)


def load(folder: Path, cache: Path) -> Collection:
    return published.load(folder, cache=cache, boards=publishing.boards())


def problems(folder: Path, base: Path | None = None, **options: Any) -> str:
    found = "\n".join(map(str, looked_at(folder, base, **options).problems))
    assert found.replace("\n", "").isprintable()
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".json") for path in folder.glob("*.json"))


def test_a_good_folder_is_accepted_and_loads(good: Path, tmp_path: Path) -> None:
    assert problems(good) == "" == problems(good, base=good)
    before = sorted(good.rglob("*"))
    loaded = load(good, tmp_path)
    assert [session.outcome and session.outcome.session_seed for session in loaded.sessions] == [0, 1]
    (board,) = loaded.boards
    (row,) = board.rows
    assert (row.num_sessions, loaded.tier(row), loaded.contested(row)) == (2, Tier.CONSISTENT, False)
    session = loaded.of(row.sessions[0])
    assert (session.category, session.device_class, session.link) == (
        Category.CONTROL,
        "cpu",
        "https://example.org/somebody",
    )
    assert session.name.startswith("demo-random-s0-") and session.outcome is row.sessions[0]
    with pytest.raises(KeyError):
        loaded.of(replace(row.sessions[0], head="0" * 64))
    assert sorted(good.rglob("*")) == before  # nothing is written


@pytest.mark.parametrize("row", ["demo-cmaes-", pytest.param("", marks=pytest.mark.slow)])
def test_the_folder_of_the_repository_is_accepted(row: str, tmp_path: Path) -> None:
    """`bpbench verify` passes on what is published. By default one row of it; CI runs `bpbench check` on all."""
    folder = tmp_path / "entries"
    (folder / "reproductions").mkdir(parents=True)
    for path in (path for path in ENTRIES.rglob(f"{row}*") if path.is_file()):
        shutil.copy(path, folder / path.relative_to(ENTRIES))
    found = check(folder, cache=tmp_path, reproducers=listed(REPRODUCERS), boards=official.read(OFFICIAL))
    assert found.problems == () and len(found.scan.entries) >= 5 and len(found.scan.reproductions) >= 5


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rename(folder: Path, name: str, new: str) -> None:
    for suffix in (entry.SUFFIX, bundle.SUFFIX):
        (folder / f"{name}{suffix}").rename(folder / f"{new}{suffix}")


TAMPERED: dict[str, tuple[Callable[[Path, str], object], str]] = {
    "a byte of the bundle": (lambda f, n: flip(f / f"{n}.bundle.tar", 5000), "is damaged in line 1"),
    "hash": (lambda f, n: edit(f / f"{n}.json", bundle_sha256="0" * 64), "bundle_sha256 is not that of"),
    "size": (lambda f, n: edit(f / f"{n}.json", bundle_bytes=17), "bundle_bytes is 17, "),
    "a gain in the entry": (lambda f, n: edit(f / f"{n}.json", gain_bpb=0.9), "unknown field 'gain_bpb'"),
    "name": (lambda f, n: rename(f, n, "demo-gpt-s0-00000000"), "its session calls for the name demo-random-s0-"),
    "bundle gone": (lambda f, n: (f / f"{n}.bundle.tar").unlink(), ".bundle.tar is missing"),
    "entry gone": (lambda f, n: (f / f"{n}.json").unlink(), "there is no readable entry for it"),
    "both url and bundle": (lambda f, n: edit(f / f"{n}.json", url="https://example.org/a"), "keep one"),
    "stray": (lambda f, n: (f / "evil.py").write_text("import os"), "evil.py: neither an entry nor a bundle"),
    "stray folder": (lambda f, n: (f / "more").mkdir(), "more: neither an entry nor a bundle"),
    "hidden": (lambda f, n: (f / ".pth").write_text(""), ".pth: neither an entry nor a bundle"),
    "hostile name": (lambda f, n: (f / "\x1b[2Ja\u202e.json").write_text("{}"), "neither an entry nor a bundle"),
    "link": (lambda f, n: (f / "a.json").symlink_to("/etc/passwd"), "a symbolic link"),
    "linked bundle": (
        lambda f, n: (
            (f / f"{n}.bundle.tar").rename(f.parent / "x"),
            (f / f"{n}.bundle.tar").symlink_to(f.parent / "x"),
        ),
        "a symbolic link",
    ),
    "linked folder": (lambda f, n: (f / "reproductions").symlink_to(f), "a symbolic link"),
    "stray reproduction": (
        lambda f, n: ((f / "reproductions").mkdir(), (f / "reproductions" / "x.txt").write_text("")),
        "not a file that `bpbench attest` writes",
    ),
    "reproduction of nothing": (
        lambda f, n: ((f / "reproductions").mkdir(), (f / "reproductions" / "x-1.ann.01234567.jsonl").write_text("")),
        "there is no entry of that name",
    ),
    "huge entry": (lambda f, n: (f / f"{n}.json").write_bytes(b" " * 9000), "larger than 8,192 bytes"),
    "withdrawn without reason": (lambda f, n: (f / "withdrawn.txt").write_text("a-b-s0-12345678\n"), "and a reason"),
    "withdrawn and here": (lambda f, n: (f / "withdrawn.txt").write_text(f"{n} a fault\n"), "was withdrawn"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_folder_is_refused(folder: Path, case: str) -> None:
    change, expected = TAMPERED[case]
    change(folder, names(folder)[0])
    assert expected in problems(folder)
    if case not in ("withdrawn and here",):  # what only the whole shows, `load` leaves to the check
        with pytest.raises(HarnessError, match="bpbench check"):
            load(folder, folder.parent)


def test_what_a_file_manager_leaves_is_no_entry(folder: Path) -> None:
    (folder / "reproductions").mkdir()
    for place in (folder, folder / "reproductions"):
        (place / ".DS_Store").write_text("where a window was on a Mac")
    assert problems(folder) == ""


def test_what_is_no_folder(tmp_path: Path, good: Path) -> None:
    (tmp_path / "link").symlink_to(good)
    for path in (tmp_path / "nothing", tmp_path / "link"):
        with pytest.raises(ConfigError, match="not in an installed package"):
            looked_at(path)


def test_a_gap_in_the_seeds_is_refused(folder: Path, bundles: list[Path]) -> None:
    publishing.publish(folder, bundles[2])
    assert problems(folder) == ""
    middle = next(name for name in names(folder) if "-s1-" in name)
    for suffix in (".json", ".bundle.tar"):
        (folder / f"{middle}{suffix}").unlink()
    found = problems(folder)
    assert found.count("\n") == 0 and "there is no seed 1" in found and "-s2-" in found


def test_a_seed_counts_once(folder: Path, tmp_path: Path) -> None:
    """A second session under a seed, also a bad one, is not left out silently."""
    again = publishing.packed(tmp_path / "again", 1, 0.01)
    publishing.publish(folder, again)
    assert "a later session under the same seed" in problems(folder)


def test_the_same_under_two_names_is_told_once(folder: Path, bundles: list[Path]) -> None:
    name = names(folder)[0]
    shutil.copy(folder / f"{name}.json", folder / "demo-x-s0-00000000.json")
    shutil.copy(folder / f"{name}.bundle.tar", folder / "demo-x-s0-00000000.bundle.tar")
    found = problems(folder)
    assert found.count("the same bundle as demo-random-s0-") == 1 and "the same session" not in found


# Sessions that cannot be ranked, whatever their journal says of itself.


def journal(bundles: list[Path]) -> Lines:
    return lines_of(read(bundles[0].parent / "session0" / "journal.jsonl")[0])


def unfinished(lines: Lines) -> None:
    del lines[-1]


def opening(lines: Lines) -> dict[str, Any]:
    return data(lines, "session_open")


UNRANKED: dict[str, tuple[Callable[[Lines], object], str]] = {
    "says so": (lambda x: opening(x).update(unranked=["\x1b[2Jx"]), "cannot be ranked: x"),
    "unfinished": (unfinished, "it is unfinished"),
    "replay": (
        lambda x: opening(x)["config"].update(agent={"name": "replay", "options": {}}),
        "repeats another session",
    ),
    "external": (lambda x: opening(x)["config"]["agent"].update(name="external"), "not limited to its model's"),
    "synthetic": (lambda x: opening(x)["config"]["data"].update(source="synthetic"), "generated text"),
    "scripted": (lambda x: opening(x)["config"]["llm"]["scripted"].update(wire="openai"), "a script"),
    "torch": (lambda x: opening(x)["versions"].update(torch="2.12.0"), "install torch=="),
    "no walls": (lambda x: opening(x).pop("walls"), "nothing says what held"),
    "memory": (lambda x: opening(x)["config"]["task"].update(max_memory_bytes=1), "task.max_memory_bytes is 1"),
}


@pytest.mark.parametrize("case", UNRANKED)
def test_a_session_that_cannot_be_ranked_is_refused(bundles: list[Path], tmp_path: Path, case: str) -> None:
    change, expected = UNRANKED[case]
    lines = journal(bundles)
    change(lines)
    publishing.publish(tmp_path / "entries", publishing.repacked(lines, tmp_path / "x.bundle.tar"))
    assert expected in problems(tmp_path / "entries")


def test_an_inconsistent_session_is_refused(bundles: list[Path], tmp_path: Path) -> None:
    lines = journal(bundles)
    data(lines, "confirmed")["mean_bpb"] += 0.01
    publishing.publish(tmp_path / "entries", publishing.repacked(lines, tmp_path / "x.bundle.tar"))
    assert "its bundle is not consistent: see `bpbench verify" in problems(tmp_path / "entries")


# Against what is published.


def drop(folder: Path, name: str) -> None:
    for suffix in (".json", ".bundle.tar"):
        (folder / f"{name}{suffix}").unlink()


def test_a_published_entry_may_not_vanish_or_change(folder: Path, good: Path) -> None:
    last = names(folder)[1]
    edit(folder / f"{last}.json", note="better than it looks")
    assert problems(folder) == "" and "is published and may not change" in problems(folder, good)
    drop(folder, last)
    assert problems(folder) == "" and "is published and may not vanish" in problems(folder, good)


def test_it_may_be_withdrawn_for_a_reason(folder: Path, good: Path) -> None:
    last = names(folder)[1]
    drop(folder, last)
    with (folder / "withdrawn.txt").open("a") as file:
        file.write(f"{last} its machine was overheated\n")
    assert problems(folder, good) == ""
    again = folder.parent / "again"
    shutil.copytree(folder, again)
    (again / "withdrawn.txt").write_text("")
    assert "lines were removed or changed" in problems(again, folder)


def test_only_what_is_published_can_be_withdrawn(folder: Path, good: Path) -> None:
    with (folder / "withdrawn.txt").open("a") as file:
        file.write("demo-random-s7-00000000 never was\n")
    assert "is not published, so it cannot be withdrawn" in problems(folder, good)


def test_a_bundle_may_move(folder: Path, good: Path) -> None:
    """Its hash says that it is the same."""
    name = names(folder)[1]
    bundle, base = folder / f"{name}.bundle.tar", folder.parent / "base"
    content = bundle.read_bytes()
    bundle.unlink()
    edit(folder / f"{name}.json", url="https://example.org/a")
    assert "may not move elsewhere" in problems(folder, good)
    who = json.loads((folder / f"{name}.json").read_text())["submitted_by"]
    edit(folder / f"{name}.json", submitted_by={**who, "account": "ann"})
    shutil.copytree(folder, base)
    edit(folder / f"{name}.json", url="https://example.org/b")
    assert problems(folder, base, author="Ann") == ""
    assert "its bundle would move, and only" in problems(folder, base, author="eve")
    edit(folder / f"{name}.json", url=None)
    bundle.write_bytes(content)
    assert problems(folder, base, author="eve") == ""


# Bundles that lie elsewhere.


def elsewhere(folder: Path) -> str:
    name = names(folder)[1]
    edit(folder / f"{name}.json", url="https://example.org/a")
    (folder / f"{name}.bundle.tar").rename(folder.parent / "elsewhere.tar")
    return name


def test_a_bundle_elsewhere_is_self_reported_until_it_was_fetched(folder: Path) -> None:
    name, cache = elsewhere(folder), folder.parent / "cache"
    assert looked_at(folder).absent == (name,)
    before = load(folder, cache)
    assert [session.tier for session in before.sessions] == [Tier.CONSISTENT, Tier.SELF_REPORTED]
    assert before.boards[0].rows[0].num_sessions == 1

    def fetch(made: entry.Entry, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        shutil.copy(folder.parent / "elsewhere.tar", target)

    checked = looked_at(folder, fetch=fetch)
    assert checked.problems == () and checked.absent == ()
    assert load(folder, cache).boards[0].rows[0].num_sessions == 2


def test_a_bundle_that_cannot_be_fetched_is_a_problem(folder: Path) -> None:
    name = elsewhere(folder)

    def fetch(made: entry.Entry, target: Path) -> None:
        raise ConfigError(f"{made.url} cannot be fetched")

    assert problems(folder, fetch=fetch) == f"{name}.json: https://example.org/a cannot be fetched"


def test_a_published_bundle_that_cannot_be_fetched_stops_nobody(folder: Path, bundles: list[Path]) -> None:
    """Its server is away: no fault of who proposes a third session, and its seed is there all the same."""
    name = elsewhere(folder)
    base = Path(shutil.copytree(folder, folder.parent / "base"))
    publishing.publish(folder, bundles[2])

    def fetch(made: entry.Entry, target: Path) -> None:
        raise ConfigError(f"{made.url} cannot be fetched")

    checked = looked_at(folder, base, fetch=fetch)
    assert checked.problems == () and checked.absent == (name,)
    # Simulated sessions call themselves `random`, and have scores that `demo` never had: both are told.
    known = ("agent=random", "bpb on val")
    notes = [str(note) for note in checked.notes if not any(word in note.what for word in known)]
    assert notes == [f"{name}.json: https://example.org/a cannot be fetched"]
    # In a clone, too, where nothing says what is published; and in a row that others go on with.
    assert not any(item.where.startswith(name) for item in looked_at(folder).problems)
    assert looked_at(folder).problems == ()
    # Where it was moved by this very change, it must be there.
    edit(folder / f"{name}.json", url="https://example.org/b")
    assert "https://example.org/b cannot be fetched" in problems(folder, base, fetch=fetch)


def test_a_damaged_file_in_the_cache_is_fetched_again(folder: Path) -> None:
    name = elsewhere(folder)
    target = cached(folder.parent / "cache", entry.parse((folder / f"{name}.json").read_bytes(), name))
    target.parent.mkdir()
    target.write_bytes(b"half of it")
    asked = []

    def fetch(made: entry.Entry, path: Path) -> None:
        asked.append(path)
        shutil.copy(folder.parent / "elsewhere.tar", path)

    for _ in range(2):
        assert looked_at(folder, fetch=fetch).problems == ()
    assert asked == [target]


def test_what_was_fetched_is_verified_like_all_others(folder: Path) -> None:
    name = elsewhere(folder)
    made = entry.parse((folder / f"{name}.json").read_bytes(), name)
    target = cached(folder.parent / "cache", made)
    target.parent.mkdir()
    content = bytearray((folder.parent / "elsewhere.tar").read_bytes())
    content[3000] ^= 1
    target.write_bytes(content)
    assert f"{name}.json: " in problems(folder)


def test_a_large_bundle_lies_elsewhere(folder: Path) -> None:
    name = names(folder)[0]
    path = folder / f"{name}.bundle.tar"
    with path.open("ab") as file:
        file.truncate(entry.MAX_BESIDE_BYTES + 1)
    edit(folder / f"{name}.json", bundle_bytes=entry.MAX_BESIDE_BYTES + 1)
    assert "publish it elsewhere and give its url" in problems(folder)
