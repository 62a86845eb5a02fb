"""Reproductions of published sessions: whose count, what they make of a session, and what is no reproduction."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import publishing
import pytest
from doctored import Lines, chained, data, finished, lines_of

from harness.errors import ConfigError
from harness.journal import read
from leaderboard import attest, published, scan
from leaderboard.bundle import Bundle
from leaderboard.check import check
from leaderboard.paths import REPRODUCERS
from leaderboard.published import Collection, Tier
from leaderboard.retrained import Attested, Retrained, examine, listed
from leaderboard.tiers import with_reproductions
from leaderboard.verdict import Verdict, Word
from leaderboard.verify import verify

LISTED = frozenset({"ann", "bob"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published session, and reproductions of it: of a true winner, and where it gains nothing."""
    root = tmp_path_factory.mktemp("reproductions")
    packed = publishing.packed(root)
    publishing.publish(root / "entries", packed)
    publishing.reproduced(packed, root / "true")
    publishing.reproduced(packed, root / "false", worth=0.0, nonce="8")
    return root


@pytest.fixture(scope="module")
def whole(root: Path) -> Bundle:
    return verify(root / "session0.bundle.tar").bundle


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root / "entries", tmp_path / "entries"))


def put(folder: Path, reproduction: Path, by: str = "ann") -> attest.Put:
    return attest.attest(reproduction, by, scan.scan(folder, folder.parent, LISTED, publishing.boards()), LISTED)


def load(folder: Path, reproducers: frozenset[str] = LISTED) -> Collection:
    return published.load(folder, cache=folder.parent, reproducers=reproducers, boards=publishing.boards())


def problems(folder: Path, reproducers: frozenset[str] = LISTED, base: Path | None = None) -> str:
    known = {"reproducers": reproducers, "boards": publishing.boards(), "base": base}
    return "\n".join(map(str, check(folder, cache=folder.parent, **known).problems))


def test_a_reproduced_session(folder: Path, root: Path) -> None:
    made = put(folder, root / "true")
    assert made.path.parent == folder / "reproductions" and made.path.name.split(".")[1:] == [
        "ann",
        made.attested.retrained.device[:8],
        "jsonl",
    ]
    assert problems(folder) == ""
    loaded = load(folder)
    (session,) = loaded.sessions
    (row,) = loaded.boards[0].rows
    assert (session.tier, session.contested, loaded.tier(row)) == (Tier.REPRODUCED, False, Tier.REPRODUCED)
    assert [(item.by, item.verdict.word) for item in session.retrained] == [("ann", Word.REPRODUCED)]


def test_a_contested_row_leaves_the_ranking_and_stays_to_be_seen(folder: Path, root: Path) -> None:
    put(folder, root / "true", "bob")
    put(folder, root / "false")
    loaded = load(folder)
    (session,) = loaded.sessions
    (board,) = loaded.boards
    assert session.contested and session.tier is Tier.CONSISTENT and len(session.retrained) == 2
    assert loaded.contested(board.rows[0]) and board.rows[0].group is None and board.rows[0].mean_bpb


def test_a_contest_outlasts_the_bundle(folder: Path, root: Path) -> None:
    """The submitter's server is away, or the file on it gone: what a reproduction found stays."""
    made = put(folder, root / "false")
    name, device = made.session.name, made.attested.retrained.device[:8]
    entry_file = folder / f"{name}.json"
    entry_file.write_text(entry_file.read_text().replace('"url": null', '"url": "https://example.org/a"'))
    (folder / f"{name}.bundle.tar").rename(folder.parent / "elsewhere.tar")
    assert problems(folder) == ""
    (session,) = load(folder).sessions
    assert (session.bundle, session.tier, session.contested) == (None, Tier.SELF_REPORTED, True)
    assert [item.verdict.word for item in session.retrained] == [Word.NOT_REPRODUCED]
    put_by_bob = folder / "reproductions" / f"{name}.bob.{device}.jsonl"
    shutil.copy(root / "true" / "journal.jsonl", put_by_bob)
    assert not load(folder).sessions[0].contested  # which of the two is on its own device nobody can tell now
    lines = lines_of(read(root / "true" / "journal.jsonl")[0])
    lines[0]["data"]["bundle_sha256"] = "0" * 64
    put_by_bob.write_bytes(chained(lines))
    assert "its bundle_sha256 is not that of the entry" in problems(folder)


def test_it_can_be_continued_but_not_replaced(folder: Path, root: Path, tmp_path: Path) -> None:
    before = put(folder, root / "true").path.read_bytes()
    longer = Path(shutil.copytree(root / "true", tmp_path / "longer"))
    publishing.reproduced(root / "session0.bundle.tar", longer, pairs=4)
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    path = put(folder, longer).path
    assert path.read_bytes().startswith(before) and problems(folder, base=base) == ""
    assert load(folder).sessions[0].retrained[0].verdict.num_pairs == 4
    with pytest.raises(ConfigError, match="may only be continued"):
        put(folder, root / "false")
    path.write_bytes((root / "false" / "journal.jsonl").read_bytes())
    assert "may only be continued" in problems(folder, base=base)
    path.unlink()
    assert "may not vanish" in problems(folder, base=base)
    # Of somebody who is no longer listed it may go.
    assert problems(folder, frozenset({"bob"}), base=base) == ""


def test_who_is_not_listed_counts_for_nothing(folder: Path, root: Path) -> None:
    for by, why in (("eve", "not on the list of reproducers"), ("../x", "expected an account's name")):
        with pytest.raises(ConfigError, match=why):
            put(folder, root / "true", by)
    put(folder, root / "true")
    assert problems(folder, frozenset({"bob"})) == "" and load(folder, frozenset({"bob"})).sessions[0].retrained == ()


def test_one_reproduction_does_not_count_for_two(folder: Path, root: Path) -> None:
    path = put(folder, root / "true").path
    shutil.copy(path, path.with_name(path.name.replace(".ann.", ".bob.")))
    assert "the same reproduction as" in problems(folder)


def test_on_another_kind_of_device_there_may_be_a_second_one(folder: Path, root: Path, tmp_path: Path) -> None:
    """And the one on the session's own kind decides, though the other one is there first."""
    lines = lines_of(read(root / "false" / "journal.jsonl")[0])
    lines[0]["data"]["device"]["fingerprint"] = "0123456789abcdef"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "journal.jsonl").write_bytes(chained(lines))
    put(folder, tmp_path / "elsewhere")
    assert load(folder).sessions[0].contested
    put(folder, root / "true")
    assert problems(folder) == "" and len(list((folder / "reproductions").iterdir())) == 2
    (session,) = load(folder).sessions
    assert (session.tier, session.contested) == (Tier.REPRODUCED, False)
    path = folder / "reproductions" / f"{session.name}.ann.01234567.jsonl"
    path.rename(path.with_name(f"{session.name}.ann.76543210.jsonl"))
    assert "made on another device than its name says" in problems(folder)


def test_of_what_is_not_published(folder: Path, root: Path, tmp_path: Path) -> None:
    other = publishing.packed(tmp_path / "other", 1)
    publishing.reproduced(other, tmp_path / "reproduction")
    with pytest.raises(ConfigError, match="not a reproduction of an entry"):
        put(folder, tmp_path / "reproduction")
    with pytest.raises(ConfigError, match="No such file"):
        put(folder, tmp_path)


def verdict_word(lines: Lines) -> None:
    data(lines, "verdict")["verdict"]["word"] = "reproduced"


def better_run(lines: Lines) -> None:
    finished(lines, "confirm_candidate-000")["bpb"] -= 0.1


def dropped_pair(lines: Lines) -> None:
    lines[:] = [line for line in lines if not line["data"].get("run_id", "").endswith("-001")]


def other_seed(lines: Lines) -> None:
    for line in lines:
        if line["data"].get("run_id") == "confirm_candidate-002":
            line["data"]["seed"] += 1


def chosen(lines: Lines) -> None:
    """A run that was begun, and another one finished."""
    first = next(line for line in lines if line["type"] == "run_started")
    lines.remove(first)


def opened(**values: object) -> Callable[[Lines], None]:
    return lambda lines: lines[0]["data"].update(values)


def went_on(**values: object) -> Callable[[Lines], None]:
    """Stopped and continued before the first run, under the terms of its beginning but for `values`."""

    def change(lines: Lines) -> None:
        began = {name: lines[0]["data"][name] for name in ("walls", "task")}
        said = {"reason": "resumed", **began, **values}
        lines.insert(2, {"time": lines[1]["time"], "type": "resumed", "data": said})

    return change


def walls(level: int, **states: str) -> dict[str, object]:
    return {"name": "bubblewrap", "level": level, "canaries": {**publishing.WALLS.canaries, **states}}


def at_speed(beside_stock: float, beside_candidate: float) -> Callable[[Lines], None]:
    """So fast by the bursts of the runs of each kind, calibrated is 1."""

    def change(lines: Lines) -> None:
        for line in lines:
            if line["type"] == "run_finished":
                speed = beside_stock if line["data"]["role"] == "confirm_baseline" else beside_candidate
                meter = {"bursts": [], "stopped_seconds": 1.0, "budget_tokens": 1.0, "used_tokens": 1.0}
                line["data"]["result"]["metered"] = {**meter, "correction": speed}

    return change


def cut_off_twice(lines: Lines) -> None:
    first = next(place for place, line in enumerate(lines) if line["type"] == "run_started")
    lines[first:first] = [lines[first]] * 2


def made_again(times: int, *speeds: float) -> Callable[[Lines], None]:
    """The first run, because the device had these speeds around it."""

    def change(lines: Lines) -> None:
        first = next(place for place, line in enumerate(lines) if line["type"] == "run_started")
        result = {**finished(lines, lines[first]["data"]["run_id"]), "sentinel": list(speeds)}
        drifted = {
            **lines[first],
            "type": "run_drifted",
            "data": {**lines[first]["data"], "drift": -0.3, "result": result},
        }
        lines[first:first] = [lines[first], drifted] * times

    return change


REFUSED: dict[str, tuple[Callable[[Lines], object], str]] = {
    "another session": (opened(session_head="0" * 64), "its session_head is not that of the entry"),
    "another bundle": (opened(bundle_sha256="0" * 64), "its bundle_sha256 is not that of the entry"),
    "another key": (opened(key={"protocol": 1}), "its key is not that of the entry"),
    "another claim": (opened(claim=None), "its claim is not that of the entry"),
    "without walls": (opened(walls=walls(1)), "made without walls"),
    "an open wall": (opened(walls=walls(3, read_val="open")), "wall read_val is open"),
    "a wall that was not tried": (opened(walls=walls(3, stop="unknown")), "wall stop is unknown"),
    "no walls tried": (opened(walls={"name": "x", "level": 3, "canaries": {}}), "wall tcp is unknown"),
    "walls of elsewhere": (opened(walls={"level": 3}), "not the journal of a reproduction"),
    "other task": (lambda x: x[0]["data"]["task"].update(audit_cuts=2), "its task.audit_cuts is not the session's"),
    "went on without walls": (went_on(walls=walls(0)), "made without walls"),
    "went on behind an open wall": (went_on(walls=walls(3, udp="open")), "wall udp is open"),
    "went on as another task": (went_on(task={}), "is not the session's"),
    "went on without a word": (went_on(walls=None), "does not say under which walls"),
    "older": (lambda x: x[0]["data"].pop("task"), "does not say under which walls"),
    "no calibration": (lambda x: x.pop(1), "expected one calibration"),
    "two calibrations": (lambda x: x.insert(2, x[1]), "expected one calibration"),
    "no audit": (lambda x: finished(x, "confirm_candidate-000").update(audit=None), "ok without an audit"),
    "few cuts": (
        lambda x: finished(x, "confirm_candidate-000")["audit"].update(num_uniform=1, num_targeted=1),
        "the task asks for 512",
    ),
    "no score of text": (lambda x: finished(x, "confirm_candidate-000").update(bpb=9.0), "with the score 9.0"),
    "a busy device": (at_speed(0.5, 0.5), "ran at 50 % of its calibrated speed"),
    "a device held up": (at_speed(1.1, 0.8), "27 % slower beside the candidate than beside the stock script"),
    "another device setting": (opened(backend={"name": "cpu", "threads": 1, "dtype": None}), "backend.threads is set"),
    "cut off twice": (cut_off_twice, "was cut off 2 times and made again"),
    "made again for nothing": (made_again(1, 1000.0, 1001.0), "although the device's speed had not changed"),
    "made again and again": (made_again(2, 1000.0, 400.0), "made again more than once"),
    "another device at the end": (
        lambda x: finished(x, "confirm_candidate-000").update(sentinel=[1000.0, 400.0]),
        "the device was not as fast as it was calibrated",
    ),
    "another torch": (went_on(torch="2.12.0"), "made with torch 2.12.0, expected 2.13.0"),
    "memory": (lambda x: finished(x, "confirm_candidate-000").update(peak_memory_bytes=2**61), "peak_memory_bytes is"),
    "another nonce": (opened(nonce="0" * 32), "not the run, seed and split that the rules call for"),
    "fewer pairs asked": (opened(num_pairs=2), "a verdict before all pairs were there"),
    "no text": (opened(num_pairs="many"), "not the journal of a reproduction"),
    "word": (verdict_word, "its runs give not reproduced"),
    "run": (better_run, "not this verdict"),
    "dropped pair": (dropped_pair, "not the run, seed and split"),
    "seed": (other_seed, "not the run, seed and split"),
    "unannounced": (chosen, "finished without having been announced"),
    "no verdict": (lambda x: x.pop(), "it has no verdict yet"),
    "failed stock": (
        lambda x: finished(x, "confirm_baseline-000").update(status="crash", bpb=None),
        "a run of the stock script failed",
    ),
    "negative": (lambda x: finished(x, "confirm_candidate-000").update(bpb=-1.0), "with the score -1.0"),
    "val": (lambda x: finished(x, "confirm_candidate-000").update(split="val"), "was not scored on test"),
    "a session's journal": (lambda x: x[0].update(type="session_open"), "not the journal of a reproduction"),
    "unknown record": (lambda x: x[1].update(type="note"), "not the journal of a reproduction"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_follow_from_its_runs(root: Path, whole: Bundle, case: str) -> None:
    change, expected = REFUSED[case]
    lines = lines_of(read(root / "false" / "journal.jsonl")[0])
    change(lines)
    with pytest.raises(ConfigError) as caught:
        examine(chained(lines), "x.jsonl", "ann", whole)
    assert expected in str(caught.value) and str(caught.value).startswith("x.jsonl: ")


def test_it_may_go_on_under_the_terms_of_its_beginning(root: Path, whole: Bundle) -> None:
    lines = lines_of(read(root / "true" / "journal.jsonl")[0])
    went_on()(lines)
    assert examine(chained(lines), "x", "ann", whole).retrained.verdict.word is Word.REPRODUCED


def test_a_run_beside_which_the_device_had_changed_is_made_again(root: Path, whole: Bundle) -> None:
    lines = lines_of(read(root / "true" / "journal.jsonl")[0])
    made_again(1, 1000.0, 400.0)(lines)
    assert examine(chained(lines), "x", "ann", whole).retrained.verdict.word is Word.REPRODUCED


def test_too_few_pairs(root: Path, whole: Bundle, tmp_path: Path) -> None:
    publishing.reproduced(root / "session0.bundle.tar", tmp_path / "two", pairs=2)
    with pytest.raises(ConfigError, match="2 pairs; expected at least the 3"):
        examine((tmp_path / "two" / "journal.jsonl").read_bytes(), "x", "ann", whole)


def test_damaged_journals(root: Path, whole: Bundle) -> None:
    good = (root / "true" / "journal.jsonl").read_bytes()
    assert examine(good, "x", "ann", whole).retrained.verdict.word is Word.REPRODUCED
    for content in (b"", b"{}\n", good[:-1], good[:300] + b"0" + good[301:], b"\n" * 3000, b"[" * 9999 + b"\n"):
        with pytest.raises(ConfigError, match=r"^x: .*"):
            examine(content, "x", "ann", whole)


def test_the_words_of_a_verdict_are_ours(root: Path, whole: Bundle) -> None:
    lines = lines_of(read(root / "true" / "journal.jsonl")[0])
    data(lines, "verdict")["verdict"]["why"] = "<script>"
    assert examine(chained(lines), "x", "ann", whole).retrained.verdict.why == "the winner gains here too"


HOME, AWAY = "f" * 16, "e" * 16


@pytest.mark.parametrize(
    ("found", "tier", "contested"),
    [
        ([], Tier.CONSISTENT, False),
        ([(HOME, Word.REPRODUCED)], Tier.REPRODUCED, False),
        ([(AWAY, Word.REPRODUCED)], Tier.REPRODUCED, False),
        ([(HOME, Word.INCONCLUSIVE)], Tier.CONSISTENT, False),
        ([(HOME, Word.NOT_REPRODUCED)], Tier.CONSISTENT, True),
        ([(AWAY, Word.NOT_REPRODUCED)], Tier.CONSISTENT, True),
        ([(HOME, Word.REPRODUCED), (HOME, Word.NOT_REPRODUCED)], Tier.CONSISTENT, True),
        ([(HOME, Word.REPRODUCED), (AWAY, Word.NOT_REPRODUCED)], Tier.REPRODUCED, False),
        ([(AWAY, Word.REPRODUCED), (HOME, Word.NOT_REPRODUCED)], Tier.CONSISTENT, True),
        ([(HOME, Word.INCONCLUSIVE), (AWAY, Word.NOT_REPRODUCED)], Tier.CONSISTENT, True),
    ],
)
def test_what_verdicts_make_of_a_session(
    root: Path, found: list[tuple[str, Word]], tier: Tier, contested: bool
) -> None:
    session = load(root / "entries").sessions[0]
    assert session.outcome is not None and session.outcome.device == HOME
    verdict = Verdict(Word.REPRODUCED, "", 0.1, 0.1, 0.1, 3, 0, 0.1, 0.1, 0.1, 0.95, None)
    made = [
        Attested(Retrained("ann", "cpu", device, float(number), replace(verdict, word=word)), str(number))
        for number, (device, word) in enumerate(found)
    ]
    after = with_reproductions(session, made)
    assert (after.tier, after.contested, len(after.retrained)) == (tier, contested, len(found))
    own = [item for item in after.retrained if item.device == HOME and item.verdict.word is not Word.INCONCLUSIVE]
    assert any(item.counts for item in after.retrained) == (contested or tier is Tier.REPRODUCED)
    assert not own or all(item.counts == (item in own) for item in after.retrained)


def test_the_list_of_reproducers(tmp_path: Path) -> None:
    path = tmp_path / "reproducers.txt"
    path.write_text("# why\nann  # since 2025\n\n bob\n")
    assert listed(path) == LISTED
    for content in (b"Ann Smith\n", b"\xff\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"reproducers\.txt"):
            listed(path)
    listed(REPRODUCERS)  # that of the repository can be read


def test_a_newer_version_of_the_protocol_acquits_nobody(root: Path, folder: Path) -> None:
    """A session of an older version, that a reproduction under that version contested, stays contested."""
    lines = lines_of(read(root / "session0" / "journal.jsonl")[0])
    data(lines, "session_open")["key"]["protocol"] = 1
    older = publishing.repacked(lines, folder.parent / "old.bundle.tar")
    publishing.reproduced(older, folder.parent / "false", worth=0.0, nonce="9")
    made = examine((folder.parent / "false" / "journal.jsonl").read_bytes(), "x", "ann", verify(older).bundle)
    session = load(folder).sessions[0]
    assert with_reproductions(session, [made]).contested
