"""What only a whole folder shows: one session under two names, whose reproductions are proposed, days, boards."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import publishing
import pytest
from doctored import Lines, data, finished, lines_of

from harness import seeds
from harness.errors import ConfigError
from harness.journal import read
from harness.records import Role, SessionState
from leaderboard import attest, check, entry, scan, submit
from leaderboard import doubles as doubles_of
from leaderboard.check import Checked
from leaderboard.doubles import doubles
from leaderboard.published import Published

LISTED = frozenset({"ann", "bob"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two published sessions, and a reproduction of the first."""
    root = tmp_path_factory.mktemp("whole")
    for seed in (0, 1):
        publishing.publish(root / "entries", publishing.packed(root, seed))
    publishing.reproduced(root / "session0.bundle.tar", root / "reproduction")
    return root


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root / "entries", tmp_path / "entries"))


def scanned(folder: Path, reproducers: frozenset[str] = LISTED) -> scan.Scan:
    return scan.scan(folder, folder.parent, reproducers, publishing.boards())


def checked(folder: Path, base: Path | None = None, **options: Any) -> Checked:
    known = {"reproducers": LISTED, "boards": publishing.boards(), **options}
    return check.check(folder, cache=folder.parent, base=base, **known)


def problems(folder: Path, base: Path | None = None, **options: Any) -> str:
    return "\n".join(map(str, checked(folder, base, **options).problems))


# Doubles.


def test_a_session_that_was_chained_again_is_still_the_same(root: Path, folder: Path) -> None:
    """Another note in the record gives other hashes throughout, and no other measurement."""
    lines = lines_of(read(root / "session0" / "journal.jsonl")[0])
    data(lines, "session_open")["packages"].update(other="1")
    publishing.publish(folder, publishing.repacked(lines, folder.parent / "again.bundle.tar"))
    assert "the same session as demo-random-s0-" in problems(folder)


SHARED: dict[str, Callable[[SessionState, SessionState], SessionState]] = {
    "nonce": lambda x, y: replace(x, opened={**x.opened, "nonce_sha256": y.opened["nonce_sha256"]}),
    "rates": lambda x, y: replace(x, calibration=y.calibration),
    "baseline": lambda x, y: replace(x, baseline=y.baseline),
    "stock on test": lambda x, y: replace(x, confirm_baseline=y.confirm_baseline),
    "winner on test": lambda x, y: replace(x, confirm_candidate=y.confirm_candidate),
}


@pytest.mark.parametrize("case", SHARED)
def test_one_measurement_in_common_is_enough(root: Path, case: str) -> None:
    found = scanned(root / "entries")
    first, second = found.sessions
    assert list(doubles(found)) == []
    assert first.bundle is not None and second.bundle is not None
    state = SHARED[case](second.bundle.state, first.bundle.state)
    other = replace(second, bundle=replace(second.bundle, state=state))
    (problem,) = doubles(replace(found, sessions=(first, other)))
    assert f"the same session as {first.name}" in problem.what and problem.where == f"{second.name}.json"


def copied(lines: Lines) -> None:
    """Another session seed with its run seeds, another nonce, and the last digits of one figure of each kind."""
    nonce = "1" * 32
    opened = data(lines, "session_open")
    opened["config"]["session"]["seed"] = 1
    opened["nonce_sha256"] = seeds.commitment(nonce)
    data(lines, "closed")["nonce"] = nonce
    for line in lines:
        if line["type"] in ("run_started", "run_finished"):
            identity = line["data"]
            role = Role(identity["role"])
            identity["seed"] = seeds.deal("demo", 1, role, identity["index"], nonce)
    data(lines, "calibration")["block_tokens_per_second"][1] *= 1 + 1e-14
    for name in ("baseline-000", "confirm_baseline-000", "confirm_candidate-000"):
        for figure in ("bpb", "train_seconds") if name != "baseline-000" else ("train_seconds",):
            finished(lines, name)[figure] *= 1 - 1e-14


def test_a_copy_is_found_by_the_figures_that_were_left(root: Path, tmp_path: Path) -> None:
    """Re-dealt, re-seeded and consistent: an honest reproducer would confirm it, for the gain is there."""
    folder = tmp_path / "entries"
    publishing.publish(folder, root / "session0.bundle.tar")
    lines = lines_of(read(root / "session0" / "journal.jsonl")[0])
    copied(lines)
    copy = publishing.repacked(lines, tmp_path / "copy.bundle.tar")
    wish = submit.Wish("Eve", None, None, "")
    with pytest.raises(ConfigError, match=r"this session is demo-random-s0-.* already"):
        submit.prepare([copy], wish, scanned(folder), publishing.TODAY, publishing.boards())
    publishing.publish(folder, copy)
    told = problems(folder)
    assert "figures that were measured once are also in demo-random-s" in told and "\n" not in told, told


def test_honest_sessions_share_too_few_figures() -> None:
    """Of two hundred figures of eight digits within a per cent, on a clock as coarse as a quarter of a microsecond."""
    rng = random.Random(0)

    def session() -> doubles_of.Figures:
        bursts = (1000.0 / (round(0.1 * rng.uniform(0.995, 1.005) * 4e6) / 4e6) for _ in range(200))
        return frozenset(("speed", f"{rate:.8g}") for rate in bursts)

    known: dict[str, doubles_of.Figures] = {}
    for number in range(150):
        own = session()
        assert doubles_of.copies(own, known) == []
        known[str(number)] = own


def test_round_figures_are_nobodys() -> None:
    for shown, digits in (("1000", 1), ("12.5", 3), ("0.001", 1), ("1.2345678e-05", 8), ("inf", 0), ("20.480123", 8)):
        assert doubles_of._num_digits(shown) == digits


def test_scores_that_are_not_there_are_nothing_in_common(root: Path) -> None:
    """Candidates that failed in every pair, for example."""
    found = scanned(root / "entries")

    def failing(session: Published) -> Published:
        assert session.bundle is not None
        state = session.bundle.state
        runs = tuple(replace(run, bpb=None) for run in state.confirm_candidate)
        return replace(session, bundle=replace(session.bundle, state=replace(state, confirm_candidate=runs)))

    assert list(doubles(replace(found, sessions=tuple(map(failing, found.sessions))))) == []


# Entries and reproductions of others.


def test_a_new_entry_names_the_account_that_proposes_it(root: Path, tmp_path: Path) -> None:
    folder, base = tmp_path / "entries", tmp_path / "base"
    base.mkdir()
    for account in ("ann", None):
        by = entry.Submitter("Ann", None, account)
        publishing.publish(folder, root / "session0.bundle.tar", submitted_by=by)
        assert (problems(folder, base, author="Ann") == "") == (account == "ann")
        assert f"names the account {account or 'of nobody'}, and is proposed by eve" in problems(
            folder, base, author="eve"
        )
        assert problems(folder, folder, author="eve") == problems(folder, base) == ""


@pytest.mark.parametrize(
    ("link", "account", "expected"),
    [
        (None, None, None),
        (None, "Ann", "ann"),
        ("https://github.com/Ann/", None, "ann"),
        ("https://github.com/ann", "bob", "bob"),
        ("https://github.com/ann/project", None, None),
        ("https://example.org/ann", None, None),
    ],
)
def test_whose_account_submit_writes(link: str | None, account: str | None, expected: str | None) -> None:
    assert submit.account_of(submit.Wish("Ann", link, None, "", account)) == expected


def test_a_new_reproduction_is_proposed_by_who_made_it(root: Path, folder: Path) -> None:
    base = root / "entries"
    attest.attest(root / "reproduction", "ann", scanned(folder), LISTED)
    for author in ("ann", "Ann"):
        assert problems(folder, base, author=author) == ""
    assert "is by ann, and proposed by eve" in problems(folder, base, author="eve")
    assert problems(folder, folder, author="eve") == ""  # it was there before
    with pytest.raises(ConfigError, match="give --base"):
        checked(folder, author="ann")


def test_a_reproduction_is_continued_by_who_made_it(root: Path, folder: Path, tmp_path: Path) -> None:
    attest.attest(root / "reproduction", "ann", scanned(folder), LISTED)
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    longer = Path(shutil.copytree(root / "reproduction", tmp_path / "longer"))
    publishing.reproduced(root / "session0.bundle.tar", longer, pairs=4)
    attest.attest(longer, "ann", scanned(folder), LISTED)
    assert problems(folder, base, author="ann") == ""
    assert "proposed by bob" in problems(folder, base, author="bob")


def test_a_file_in_the_place_of_the_folder(root: Path, folder: Path) -> None:
    (folder / "reproductions").write_text("")
    with pytest.raises(ConfigError, match="expected a folder"):
        attest.attest(root / "reproduction", "ann", scanned(folder), LISTED)


def test_files_of_who_was_taken_off_the_list_are_passed_over(root: Path, folder: Path, tmp_path: Path) -> None:
    attest.attest(root / "reproduction", "ann", scanned(folder), LISTED)
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    bob = frozenset({"bob"})
    found = checked(folder, base, reproducers=bob)
    assert found.problems == () and [session.retrained for session in found.scan.sessions] == [(), ()]
    assert "ann is not on the list of reproducers" in "\n".join(map(str, found.notes))
    next((folder / "reproductions").iterdir()).unlink()
    assert problems(folder, base, reproducers=bob) == ""


# Days, versions, boards.


@pytest.mark.parametrize(("day", "fine"), [("2025-12-31", False), ("2026-01-01", True), ("2026-03-02", True)])
def test_days_that_can_be(root: Path, tmp_path: Path, day: str, fine: bool) -> None:
    publishing.publish(tmp_path / "entries", root / "session0.bundle.tar", submitted_on=day)
    assert ("submitted_on is" not in problems(tmp_path / "entries", today=date(2026, 3, 1))) == fine


def test_no_day_after_tomorrow_unless_it_is_published_already(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "entries"
    publishing.publish(folder, root / "session0.bundle.tar", submitted_on="2026-03-03")
    told = problems(folder, today=date(2026, 3, 1))
    assert "submitted_on is 2026-03-03: expected 2026-01-01 to 2026-03-02" in told
    assert problems(folder, folder, today=date(2026, 3, 1)) == ""


def test_a_session_of_an_older_version_stays_and_none_comes(root: Path, tmp_path: Path) -> None:
    lines = lines_of(read(root / "session0" / "journal.jsonl")[0])
    data(lines, "session_open")["key"]["protocol"] = 1
    folder, empty = tmp_path / "entries", tmp_path / "empty"
    empty.mkdir()
    publishing.publish(folder, publishing.repacked(lines, tmp_path / "old.bundle.tar"))
    (now,) = publishing.boards()
    both = (now, replace(now, key={**now.key, "protocol": 1}))
    assert problems(folder, folder, boards=both) == ""
    assert "made under version 1 of the protocol" in problems(folder, empty, boards=both)


def test_what_no_board_can_be_built_of_is_told_now(root: Path) -> None:
    found = scanned(root / "entries")
    (first, second) = found.sessions
    assert first.outcome is not None and list(check._unbuilt(found)) == []
    broken = replace(first, outcome=replace(first.outcome, key={"task": {1, 2}}))
    (problem,) = check._unbuilt(replace(found, sessions=(broken, second)))
    assert "the boards cannot be built" in problem.what


def test_what_is_odd_in_a_new_session_is_a_note(root: Path, folder: Path) -> None:
    lines = lines_of(read(root / "session1" / "journal.jsonl")[0])
    for line in lines[-1:]:
        line["time"] -= 1000.0  # a clock that was set back
    for path in folder.glob("*-s1-*"):
        path.unlink()
    name = publishing.publish(folder, publishing.repacked(lines, folder.parent / "odd.bundle.tar"))
    assert f"{name}.json: odd: clock: was set back 1 times" in map(str, checked(folder).notes)
    assert checked(folder, folder).notes == ()
