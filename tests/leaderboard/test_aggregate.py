"""Rows, ties, pooling of devices: from outcomes that are made up, and from sessions that were run."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import simulated
from rich.console import Console

from harness.errors import ConfigError
from harness.journal import read
from leaderboard import cli, show
from leaderboard.aggregate import Board, aggregate, contiguous
from leaderboard.bundle import write
from leaderboard.outcome import AnytimePoint, Outcome, diversity, outcome
from leaderboard.portability import portability

BASE = Outcome(
    head="h",
    researcher="r",
    label="tpe",
    is_tpe=True,
    key={"task": "demo", "protocol": 1},
    conditions={"experiments": 6},
    session_seed=0,
    opened_at=0.0,
    device="here",
    device_label="cpu",
    closed=True,
    gain_bpb=0.02,
    confirmed=None,
    num_failed_pairs=0,
    unchanged=False,
    baseline_bpb=1.5,
    sigma_bpb=0.01,
    num_experiments=6,
    num_kept=2,
    failures={"crash": 1},
    diversity=0.5,
    stopped_early=None,
    num_restarts=0,
    num_attempts=0,
    walls=None,
    unranked=(),
    anytime=(AnytimePoint(0, 0.1, 0.0, 0.0, 0), AnytimePoint(6, 0.5, 0.02, None, None)),
)


def made(name: str, gains: list[float], **fields: object) -> list[Outcome]:
    """Sessions of researcher `name` under seeds 0, 1, ..."""
    own = {"researcher": name, "label": name, "is_tpe": name == "tpe", **fields}
    return [
        replace(BASE, head=f"{name}{seed}", session_seed=seed, gain_bpb=gain, **own) for seed, gain in enumerate(gains)
    ]


def board(*groups: list[Outcome]) -> Board:
    (only,) = aggregate([item for group in groups for item in group])
    return only


SPREAD = [0.001, -0.001, 0.0005, -0.0005, 0.0, 0.0002]


def test_two_researchers_apart_and_two_tied() -> None:
    best = made("best", [0.05 + x for x in SPREAD])
    tpe = made("tpe", [0.020 + x for x in reversed(SPREAD)])
    near = made("near", [0.0201 + x for x in SPREAD])
    rows = {row.label: row for row in board(best, tpe, near).rows}
    assert [row.group for row in rows.values()] == [1, 2, 2]
    assert rows["best"].low_bpb is not None and rows["best"].low_bpb > 0.04
    share = rows["best"].share_of_tpe
    assert share is not None and share[1] < 2.5 < share[2] and rows["tpe"].share_of_tpe is None


def test_there_is_no_share_of_what_tpe_does_not_surely_gain() -> None:
    """Nor where it surely gains on the common seeds and not on all of its own."""
    tpe = made("tpe", [*(0.02 + x for x in SPREAD), -0.2, -0.1])
    rows = {row.label: row for row in board(made("best", [0.05 + x for x in SPREAD]), tpe).rows}
    assert rows["tpe"].low_bpb is not None and rows["tpe"].low_bpb < 0
    assert rows["best"].share_of_tpe is None


def test_a_difference_against_the_order_splits_no_group() -> None:
    """The means are over all sessions, the test over the common seeds: here the second row surely wins on those."""
    late = made("late", [0.01 + x for x in SPREAD[:5]] + [0.09] * 5)
    tpe = made("tpe", [0.02 + x for x in reversed(SPREAD[:5])])
    found = board(late, tpe)
    assert found.comparisons[0].different and found.comparisons[0].test.mean_bpb < 0
    assert [(row.label, row.group) for row in found.rows] == [("late", 1), ("tpe", 1)]


def test_no_verdict_below_five_sessions() -> None:
    found = board(made("best", [0.5 + x for x in SPREAD[:4]]), made("tpe", [0.02 + x for x in SPREAD]))
    assert [(row.label, row.group) for row in found.rows] == [("tpe", 1), ("best", None)]
    assert found.comparisons[0].p_holm is None and not found.comparisons[0].different
    assert found.comparisons[0].sessions_needed == 2


def test_seeds_must_be_contiguous_and_the_first_session_of_a_seed_counts() -> None:
    sessions = made("a", [0.01, 0.02, 0.03, 0.04])
    second = replace(sessions[0], head="again", opened_at=9.0, gain_bpb=0.9)
    kept, left_out = contiguous([second, *sessions[:2], sessions[3]])
    assert [item.gain_bpb for item in kept] == [0.01, 0.02]
    assert [str(item) for item in left_out] == [
        "seed 0: a later session under the same seed",
        "seed 3: there is no seed 2",
    ]


def test_of_several_devices_the_longest_line_counts_whole_whatever_the_clock_says() -> None:
    """Journals say when they were opened, and who writes one may say what he likes."""
    long = made("a", [0.01, 0.02, 0.03], device="slow", device_label="a slow one", opened_at=9.0)
    early = [replace(item, head=f"early{item.head}") for item in made("a", [0.9, 0.9], device="fast", opened_at=1.0)]
    for order in ([*long, *early], [*early, *long]):
        kept, left_out = contiguous(order)
        assert [item.gain_bpb for item in kept] == [0.01, 0.02, 0.03]
        assert [item.session for item in left_out] == early
        assert all("another device, whose line counts" in item.why for item in left_out)


def test_equal_lines_of_two_devices_are_told_apart_by_their_fingerprint() -> None:
    one, other = made("a", [0.01, 0.02], device="one"), made("a", [0.9, 0.9], device="other")
    for order in ([*one, *other], [*other, *one]):
        assert [item.gain_bpb for item in contiguous(order)[0]] == [0.01, 0.02]


def test_lines_without_a_seed_in_common_are_one() -> None:
    sessions = made("a", [0.01, 0.02, 0.03, 0.04])
    sessions[2:] = [replace(item, device="other") for item in sessions[2:]]
    kept, left_out = contiguous(sessions)
    assert len(kept) == 4 and left_out == []


def test_an_unfinished_session_ends_the_row_before_it() -> None:
    sessions = made("a", [0.01, 0.02, 0.03])
    sessions[1] = replace(sessions[1], closed=False, gain_bpb=None)
    kept, left_out = contiguous(sessions)
    assert len(kept) == 1
    assert [str(item) for item in left_out] == ["seed 1: seed 1 is unfinished", "seed 2: seed 1 is unfinished"]


def test_what_differs_in_key_or_conditions_is_never_on_one_board() -> None:
    other_key = made("a", [0.1], key={"task": "demo", "protocol": 2})
    longer = made("a", [0.1], conditions={"experiments": 12})
    assert len(aggregate([*made("a", [0.1]), *other_key, *longer])) == 3


def test_devices_are_pooled_only_where_their_baselines_were_shown_to_agree() -> None:
    here = [replace(item, baseline_bpb=1.5 + x) for item, x in zip(made("a", [0.1] * 6), SPREAD, strict=True)]
    near = [replace(item, device="near", baseline_bpb=1.5 - x) for item, x in zip(here, SPREAD, strict=True)]
    far = [replace(item, device="far", baseline_bpb=(item.baseline_bpb or 0) + 0.02) for item in here]
    (group,) = portability([*here, *near])
    assert group.devices == ("here", "near") and group.bound_bpb is not None and group.bound_bpb < 0.01
    assert [group.devices for group in portability([*here, *far])] == [("here",), ("far",)]
    assert len(portability([*here, near[0]])) == 2  # one session shows nothing


def test_a_device_that_comes_later_takes_none_from_its_group() -> None:
    """However its entries are named: the one in the middle agrees with both, and these not with each other."""
    first, middle, last = (
        [
            replace(item, head=f"{name}{item.head}", device=name, baseline_bpb=1.5 + gap + x, opened_at=at)
            for item, x in zip(made("a", [0.1] * 6), SPREAD, strict=True)
        ]
        for name, gap, at in (("z", 0.0, 1.0), ("m", 0.012, 2.0), ("a", 0.024, 3.0))
    )
    for order in ([*first, *middle, *last], [*last, *middle, *first]):
        assert [group.devices for group in portability(order)] == [("z", "m"), ("a",)]


def test_many_researchers_on_one_seed_do_not_show_what_one_seed_cannot() -> None:
    """They all run the same baseline seeds: the same few numbers again and again."""
    baselines = {"here": (1.490, 1.512), "there": (1.505, 1.497)}
    sessions = [
        replace(item, device=device, baseline_bpb=baselines[device][item.session_seed])
        for device in baselines
        for name in "abcdefgh"
        for item in made(name, [0.1, 0.1])
    ]
    assert [group.devices for group in portability(sessions)] == [("here",), ("there",)]


def test_seeds_that_both_devices_have_are_paired() -> None:
    """What a seed does to both is no difference between them."""
    luck = (0.03, -0.02, 0.01, -0.03, 0.02)
    here = [replace(item, baseline_bpb=1.5 + x) for item, x in zip(made("a", [0.1] * 5), luck, strict=True)]
    there = [
        replace(item, device="there", baseline_bpb=(item.baseline_bpb or 0) + x)
        for item, x in zip(here, SPREAD, strict=False)
    ]
    (group,) = portability([*here, *there])
    assert group.devices == ("here", "there") and group.bound_bpb is not None and group.bound_bpb < 0.002
    elsewhere = [replace(item, session_seed=item.session_seed + 5) for item in there]
    assert len(portability([*here, *elsewhere])) == 2  # unpaired, the luck of the seeds is in the way


def test_no_session_widens_the_margin_within_which_devices_are_pooled() -> None:
    """Its sigma rests on baselines that only its own journal knows: the task's counts, else the smallest."""
    here = [replace(item, baseline_bpb=1.5 + x) for item, x in zip(made("a", [0.1] * 6), SPREAD, strict=True)]
    far = [replace(item, device="far", baseline_bpb=(item.baseline_bpb or 0) + 0.05) for item in here]
    wide = [replace(item, sigma_bpb=5.0) for item in [*here, *far]]
    assert [group.devices for group in portability(wide)] == [("here",), ("far",)]
    unknown = [replace(item, key={"task": "nobody_knows_it"}) for item in [*here, *wide]]
    assert [group.devices for group in portability(unknown)] == [("here",), ("far",)]
    agreeing = [replace(item, sigma_bpb=0.06) for item in unknown]
    assert [group.devices for group in portability(agreeing)] == [("here", "far")]


def test_equal_labels_are_told_apart() -> None:
    rows = board(made("x1234", [0.1], label="tpe"), made("y1234", [0.2], label="tpe")).rows
    assert [row.label for row in rows] == ["tpe y123", "tpe x123"]


def test_anytime_curves_exist_where_costs_are_known() -> None:
    (row,) = board(made("a", [0.02, 0.02])).rows
    assert row.anytime["experiments"] == [(0, 0.0), (6, 0.02)] and "dollars" not in row.anytime


def test_diversity_is_between_the_same_and_nothing_in_common() -> None:
    from harness.records import Experiment

    def tried(*sources: str) -> list[Experiment]:
        return [Experiment(index, "", source) for index, source in enumerate(sources)]

    stock = "a = 1\nb = 2\n"
    assert diversity(tried("a = 2\nb = 2\n", "a = 2\nb = 2\n"), stock) == 0.0
    assert diversity(tried("a = 2\nb = 2\n", "a = 1\nb = 3\n"), stock) == 1.0
    assert diversity(tried("a = 2\nb = 2\n"), stock) is None


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session whose candidate fails in one confirmation pair."""
    from harness.records import Status

    bench = simulated.SimulatedBench({"0.6": 0.03}, failing={"confirm_candidate-001": Status.CRASH})
    folder = tmp_path_factory.mktemp("worse") / "worse"
    return simulated.run_session(folder, "session.seed=1", "session.experiments=1", bench=bench, values=("0.6",))


def test_an_outcome_is_what_the_session_did(session: Path, worse: Path) -> None:
    good, bad = (outcome(read(folder / "journal.jsonl")[0]) for folder in (session, worse))
    assert (good.num_experiments, good.num_kept, good.failures) == (3, 1, {})
    assert good.gain_bpb is not None and good.confirmed is not None and good.gain_bpb == good.confirmed.mean_bpb
    assert [point.experiments for point in good.anytime] == [0, 1, 2, 3]
    assert good.anytime[1].gain_bpb == 0.0 and good.anytime[2].gain_bpb == pytest.approx(0.03, abs=0.01)
    assert good.researcher == bad.researcher and good.conditions != bad.conditions
    # One of three pairs failed: no gain, however well the others went.
    assert bad.num_failed_pairs == 1 and bad.gain_bpb == 0.0


def test_the_table_of_sessions_and_bundles(
    session: Path, worse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = write(worse, tmp_path / "w.bundle.tar")
    target = tmp_path / "boards.json"
    assert cli.main(["compare", str(session), str(packed), "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "no verdict below 5" in shown and "not ranked" in shown and "random" in shown
    boards = json.loads(target.read_text())
    assert [len(item["rows"]) for item in boards] == [1, 1]
    assert boards[0]["rows"][0]["sessions"][0]["gain_bpb"] > 0
    assert cli.main(["power", str(session)]) == 0
    assert cli.main(["power", "--sd", "0.003", "--gap", "0.002"]) == 0
    assert "20 paired sessions" in capsys.readouterr().out


def test_power_needs_something_to_work_with(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--sd", "0.1"], ["--sd", "-1", "--gap", "1"]):
        assert cli.main(["power", *arguments]) == cli.cli.EXIT_USAGE
    assert "both above 0" in capsys.readouterr().err


def test_strangers_texts_are_shown_literally() -> None:
    hostile = "[red]x[/red] \x1b[2J<script>"
    rows = made(hostile, [0.1, 0.2], unranked=(hostile,), failures={hostile: 1}, device_label="d")
    console = Console(file=io.StringIO(), width=300)
    show.boards([board(rows)], console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown and "[red]x[/red]" in shown


def test_a_name_that_is_nothing_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(tmp_path / "nothing")]) == cli.cli.EXIT_USAGE
    with pytest.raises(ConfigError):
        cli._boards([str(tmp_path)])
    assert cli.main(["verify", str(tmp_path / "nothing")]) == cli.cli.EXIT_ERROR
    assert capsys.readouterr().err.count("\n") == 2


def test_what_bpbench_puts_beside_sessions_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`bpbench compare sessions/*` after `bpbench run -m`."""
    (tmp_path / "multirun").mkdir()
    assert cli._boards([str(tmp_path / "multirun")]) == []
    assert "multirun is no session: passed over" in capsys.readouterr().err


def test_who_changed_nothing_cannot_differ_from_who_changed_nothing() -> None:
    """All their sessions compare the stock script with itself: what lies between them is chance."""
    spread = [0.0001 * place for place in range(5)]
    idle = [made(name, [at + x for x in spread], unchanged=True) for name, at in (("a", 0.01), ("b", -0.01))]
    other = made("c", [0.05 + x for x in spread], num_kept=1)
    found = board(*idle, other)
    words = {(item.first, item.second): item.verdict for item in found.comparisons}
    assert words == {("c", "a"): "different", ("c", "b"): "different", ("a", "b"): "neither changed anything"}
    assert [row.group for row in found.rows] == [1, 2, 2]
