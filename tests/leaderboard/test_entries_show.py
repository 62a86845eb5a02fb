"""The table in the terminal: what it opens on, what fits, and that strangers' texts stay text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.records import SessionState
from harness.turn import LLMTotals
from leaderboard import intervals, show_standings, standings
from leaderboard.bundle import Bundle
from leaderboard.outcome import Outcome
from leaderboard.overclaim import overclaims
from leaderboard.published import Category, Collection, Published, Retrained, Tier
from leaderboard.verdict import Verdict, Word

BASE = Outcome(
    head="h", researcher="r", label="tpe", is_tpe=False, key={"task": "demo", "protocol": 2, "stock_sha256": "a" * 64},
    conditions={"experiments": 6}, session_seed=0, opened_at=0.0, device="here",
    device_label="cpu, Some Processor 9, 2 threads, bfloat16", closed=True, gain_bpb=0.02, confirmed=None,
    num_failed_pairs=0, baseline_bpb=1.5, sigma_bpb=0.01, num_experiments=6, num_kept=2, failures={}, diversity=0.5,
    stopped_early=None, num_restarts=0, num_attempts=0, walls=None, unranked=(), anytime=(),
)  # fmt: skip
LOST = Verdict(Word.NOT_REPRODUCED, "why", 0.1, 0.1, 0.1, 3, 0, 0.0, 0.0, 0.0, 0.95, None)
SPREAD = [0.001, -0.001, 0.0005, -0.0005, 0.0, 0.0002]


def sessions(
    label: str,
    gains: Sequence[float],
    tier: Tier = Tier.REPRODUCED,
    category: Category = Category.LLM,
    contested: int | None = None,
    cost_usd: float | None = 0.5,
) -> list[Published]:
    """Published sessions of one researcher; the one with the seed `contested` is."""
    made = []
    for seed, gain in enumerate(gains):
        item = replace(
            BASE, head=f"{label}{seed}", researcher=label, label=label, is_tpe=label == "tpe", session_seed=seed,
            gain_bpb=gain,
        )  # fmt: skip
        whole = Bundle((), SessionState(llm=LLMTotals(cost_usd=cost_usd)), "0" * 64)
        lost = contested == seed
        made.append(
            Published(
                name=f"{label}-s{seed}", bundle_sha256="0" * 64, bundle_bytes=1, url=None, submitted_by="Ann",
                link=None, submitted_on="2025-06-15", note="", bundle=whole, outcome=item, category=category,
                device_class="cpu", tier=tier, contested=lost,
                retrained=(Retrained("ann", "cpu", "here", 0.0, LOST),) if lost else (),
            )
        )  # fmt: skip
    return made


def collection(*groups: list[Published]) -> Collection:
    listed = tuple(item for group in groups for item in group)
    return Collection(Path("entries"), listed, standings.boards(listed))


BEST = sessions("llm best-model", [0.05 + x for x in SPREAD])
TPE = sessions("tpe", [0.02 + x for x in SPREAD], category=Category.CONTROL)
NEAR = sessions("llm near", [0.0201 + x for x in reversed(SPREAD)], Tier.CONSISTENT, cost_usd=None)


def shown(found: Collection, width: int = 80, encoding: str = "utf-8", **options: object) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show_standings.show(found, Console(file=file, width=width), **options)  # type: ignore[arg-type]
    file.seek(0)
    return file.read()


def row(table: str, label: str) -> str:
    return next(line for line in table.splitlines() if label in line)


def test_it_opens_on_reproduced_rows_ranked_among_themselves() -> None:
    found = collection(NEAR, TPE, BEST)
    opened = shown(found)
    assert row(opened, "best-model").split()[0] == "1" and row(opened, "tpe ").split()[0] == "2"
    assert "near" not in opened and "Not shown: 1 row" in opened and "--all" in opened
    assert "no order of the group as a whole is claimed." in " ".join(opened.split())
    everything = shown(found, all_tiers=True)
    assert [row(everything, name).split()[0] for name in ("best-model", "near", "tpe ")] == ["1", "2", "2"]
    assert "consistent" in row(everything, "near") and "Not shown" not in everything


def test_the_weakest_session_gives_the_row_its_tier_and_hides_nothing() -> None:
    """What anybody adds is no reason to hide, or to count, before it was reproduced too."""
    mixed = [*BEST[:-1], replace(BEST[-1], tier=Tier.CONSISTENT)]
    found = collection(mixed, TPE)
    (board,) = found.boards
    assert [str(found.tier(item)) for item in board.rows] == ["consistent", "reproduced"]
    (reproduced,) = standings.of_tier(found, frozenset({Tier.REPRODUCED}))
    assert [(item.label, item.num_sessions) for item in reproduced.rows] == [("llm best-model", 5), ("tpe", 6)]
    assert row(shown(found), "best-model").split()[3] == "5"
    first = [replace(BEST[0], tier=Tier.CONSISTENT), *BEST[1:]]
    assert "best-model" not in shown(collection(first, TPE))  # the seeds that are there begin with 1


def elsewhere(group: Sequence[Published], device: str, **fields: object) -> list[Published]:
    """The same researcher and seeds on another device."""
    return [
        replace(item, outcome=replace(item.outcome, device=device, head=f"{device}{item.name}"), **fields)
        for item in group
        if item.outcome is not None
    ]


def test_a_longer_line_on_another_device_neither_hides_nor_replaces_a_reproduced_row() -> None:
    gains = [0.01 + 0.0001 * seed for seed in range(8)]
    longer = elsewhere(sessions("llm best-model", gains), "near", tier=Tier.CONSISTENT)
    found = collection(BEST, longer, TPE)
    (board,) = found.boards
    assert next(item for item in board.rows if item.label == "llm best-model").num_sessions == 8
    (reproduced,) = standings.of_tier(found, frozenset({Tier.REPRODUCED}))
    best = reproduced.rows[0]
    assert (best.label, best.num_sessions, best.left_out) == ("llm best-model", 6, ())
    assert best.mean_bpb is not None and best.mean_bpb > 0.04


def test_a_contested_session_that_does_not_count_keeps_the_row_out_all_the_same() -> None:
    lost = elsewhere(sessions("llm best-model", [0.05, 0.051], contested=1), "near")
    found = collection(BEST, lost, TPE)
    (board,) = found.boards
    best = next(item for item in board.rows if item.label == "llm best-model")
    assert best.num_sessions == 6 and len(best.left_out) == len(best.left_out_heads) == 2
    assert found.contested(best) and best.group is None and board.comparisons == ()
    assert "best-model" not in shown(found)


def test_a_contested_row_has_no_rank_and_nobody_is_measured_against_it() -> None:
    found = collection(sessions("llm best-model", [0.05 + x for x in SPREAD], contested=2), TPE)
    (board,) = found.boards
    assert [(item.label, item.group) for item in board.rows] == [("tpe", 1), ("llm best-model", None)]
    assert board.comparisons == ()
    assert "best-model" not in shown(found)
    everything = shown(found, all_tiers=True)
    assert row(everything, "best-model").split()[0] == "-" and "contested" in row(everything, "best-model")
    assert "ann did not reproduce llm best-model-s2" in everything.replace("\n", " ")


def retrained(group: Sequence[Published], found: Sequence[float], device: str = "here") -> list[Published]:
    """Each session with a reproduction that passed and found so much."""
    return [
        replace(
            item,
            retrained=(
                Retrained(
                    "ann", "cpu", device, 0.0, replace(LOST, word=Word.REPRODUCED, mean_bpb=gain, num_pairs=3), False
                ),
            ),
        )
        for item, gain in zip(group, found, strict=True)
    ]


def test_sessions_that_pass_one_by_one_and_together_claim_too_much_contest_the_row() -> None:
    none = [0.004, -0.005, 0.002, 0.0, -0.003, 0.001]
    found = collection(retrained(BEST, none), TPE)
    (board,) = found.boards
    assert [(item.label, item.group) for item in board.rows] == [("tpe", 1), ("llm best-model", None)]
    assert found.contested(board.rows[1]) and not any(item.contested for item in found.sessions)
    assert "best-model" not in shown(found)
    assert "best-model: contested: its sessions together claim more" in " ".join(shown(found, all_tiers=True).split())


@pytest.mark.parametrize(
    "group",
    [
        retrained(BEST, [0.045, 0.055, 0.051, 0.052, 0.046, 0.053]),
        retrained(BEST, [0.09] * 6),  # who claims too little is not accused
        [*retrained(BEST[:1], [0.0]), *BEST[1:]],  # one session tells nothing of a row
        # No gain is counted there.
        [
            replace(item, outcome=replace(item.outcome, num_failed_pairs=1))
            for item in retrained(BEST, [0.0] * 6)
            if item.outcome
        ],
    ],
)
def test_rows_that_do_not_surely_claim_too_much_are_not_contested(group: list[Published]) -> None:
    assert not any(map(collection(group, TPE).contested, collection(group, TPE).boards[0].rows))


def test_what_was_found_is_pooled_by_pairs_on_the_sessions_own_kind_of_device() -> None:
    def excess(*made: tuple[str, float, int]) -> bool:
        again = tuple(
            Retrained("ann", "cpu", device, 0.0, replace(LOST, mean_bpb=gain, num_pairs=pairs))
            for device, gain, pairs in made
        )
        return overclaims([replace(item, retrained=again) for item in BEST])

    assert excess(("there", 0.0, 3))
    assert not excess(("there", 0.0, 3), ("here", 0.06, 3))
    assert not excess(("here", 0.0, 3), ("here", 0.06, 30)) and excess(("here", 0.0, 30), ("here", 0.06, 3))
    assert not excess()


def named(group: Sequence[Published]) -> list[Published]:
    """As entries are named."""
    return [replace(item, name=f"demo-best-s{seed}-0123abcd") for seed, item in enumerate(group)]


def gone(session: Published) -> Published:
    """Published, and its bundle cannot be had."""
    return replace(session, bundle=None, outcome=None, category=None, tier=Tier.SELF_REPORTED)


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_a_bad_seed_is_not_taken_back_by_letting_its_bundle_vanish(seed: int) -> None:
    """The row of what is left has no verdict, and says why; nobody is compared with it."""
    best = named(BEST)
    best[seed] = gone(best[seed])
    found = collection(best, TPE)
    (board,) = found.boards
    left = next(item for item in board.rows if item.label == "llm best-model")
    assert left.group is None and [item.name for item in found.missing(left)] == [best[seed].name]
    assert board.comparisons == ()
    everything = shown(found, all_tiers=True)
    assert f"no verdict while {best[seed].name} may be of it" in " ".join(everything.split())


def test_of_whom_a_vanished_bundle_is_its_name_must_allow() -> None:
    """Other labels, seeds that a line has, and seeds beyond a gap are no reason to doubt it."""
    best = named(BEST)
    for name in ("demo-other-s6-0123abcd", "demo-best-s2-0123abce", "demo-best-s8-0123abcd", "other"):
        found = collection(best, TPE, [gone(replace(BEST[0], name=name))])
        assert all(item.group for item in found.boards[0].rows), name
    both = [gone(replace(BEST[0], name=f"demo-best-s{seed}-0123abcd")) for seed in (6, 7)]
    (board,) = collection(best, TPE, both).boards
    assert [item.group for item in board.rows] == [1, None]


def test_a_reproduced_row_stays_where_what_vanished_never_was_reproduced() -> None:
    best = named(BEST)
    again = Retrained("ann", "cpu", "here", 0.0, replace(LOST, word=Word.REPRODUCED))
    beyond = gone(replace(BEST[0], name="demo-best-s6-0123abcd"))
    assert "best-model" in shown(collection(best, TPE, [beyond]))
    assert "best-model" not in shown(collection(best, TPE, [replace(beyond, retrained=(again,))]))


def test_a_contested_session_stays_contested_without_its_bundle() -> None:
    best = named(BEST)
    lost = Retrained("ann", "cpu", "here", 0.0, LOST)
    best[5] = replace(gone(best[5]), contested=True, retrained=(lost,))
    found = collection(best, TPE)
    left = next(item for item in found.boards[0].rows if item.label == "llm best-model")
    assert found.contested(left) and "best-model" not in shown(found)
    assert "not reproduced, and its bundle is not here" in " ".join(shown(found, all_tiers=True).split())


def by(account: str | None, group: Sequence[Published]) -> list[Published]:
    return [replace(item, account=account) for item in group]


def test_a_strangers_failure_ends_a_row_and_does_not_take_it_away() -> None:
    """Seed 6 copies researcher and device; a listed reproducer finds that it is made up."""
    best = by("ann", named(BEST))
    assert best[0].outcome is not None
    seventh = replace(best[0].outcome, head="forged", session_seed=6, gain_bpb=-0.5)
    lost = Retrained("bob", "cpu", "here", 0.0, LOST)
    forged = replace(best[0], name="demo-best-s6-0123abcd", outcome=seventh, contested=True, retrained=(lost,))
    for account, groups in (("eve", [1, 2]), ("ann", [1, None]), (None, [1, None])):
        found = collection(best, [replace(forged, account=account)], TPE)
        rows = found.boards[0].rows
        assert [item.group for item in rows] == groups
        assert [item.num_sessions for item in rows if item.label != "tpe"] == [6 if account == "eve" else 7]
        assert ("best-model" in shown(found)) == (account == "eve")
        told = "Not counted, by another account than began the row, which ends before it: demo-best-s6-0123abcd."
        assert (told in " ".join(shown(found, all_tiers=True).split())) == (account == "eve")
        for tiers in (frozenset(Tier), frozenset({Tier.REPRODUCED})):
            counted = [row for board in standings.of_tier(found, tiers) for row in board.rows if row.label != "tpe"]
            assert [row.num_sessions for row in counted] == ([6] if account == "eve" else [])


def test_a_strangers_session_that_a_limit_ended_thins_no_row_out() -> None:
    best = by("ann", named(BEST))
    assert best[0].outcome is not None
    seventh = replace(best[0].outcome, head="null", session_seed=6, gain_bpb=0.0)
    state = SessionState(config={"session": {"max_hours": 0.01}}, stopped_early="session.max_hours=0.01 was reached")
    ended = replace(best[0], name="demo-best-s6-0123abcd", outcome=seventh, bundle=Bundle((), state, "0" * 64))
    for account, counted in (("eve", 6), ("ann", 7)):
        found = collection(best, [replace(ended, account=account)])
        assert [item.num_sessions for item in found.boards[0].rows] == [counted]


def test_strangers_sessions_that_only_together_claim_too_much_end_the_row() -> None:
    """Each passes alone. Of the row's own account they would contest the row."""
    best = by("ann", named(BEST))
    assert best[0].outcome is not None
    none = [Retrained("bob", "cpu", best[0].outcome.device, 0.0, replace(LOST, word=Word.INCONCLUSIVE, mean_bpb=0.0))]
    more = [
        replace(
            best[0],
            name=f"demo-best-s{seed}-0123abcd",
            outcome=replace(best[0].outcome, head=f"forged{seed}", session_seed=seed, gain_bpb=0.05 + seed / 1000),
            retrained=tuple(none),
        )
        for seed in range(6, 11)
    ]
    for account, counted, contested in (("eve", 6, False), ("ann", 11, True)):
        found = collection(best, by(account, more))
        (row,) = found.boards[0].rows
        assert (row.num_sessions, found.contested(row)) == (counted, contested)


def test_a_strangers_server_does_not_keep_a_row_from_its_rank() -> None:
    best = by("ann", named(BEST))
    beyond = gone(replace(best[0], name="demo-best-s6-0123abcd"))
    for account, groups in (("eve", [1, 2]), ("ann", [1, None]), (None, [1, None])):
        found = collection(best, [replace(beyond, account=account)], TPE)
        assert [item.group for item in found.boards[0].rows] == groups


def test_a_share_of_a_contested_tpe_is_not_shown() -> None:
    found = collection(BEST, sessions("tpe", [0.02 + x for x in SPREAD], contested=0, category=Category.CONTROL))
    assert all(item.share_of_tpe is None for item in found.boards[0].rows)
    assert collection(BEST, TPE).boards[0].rows[0].share_of_tpe is not None

    # Another TPE, of fewer sessions, is not what shares are of.
    small = [
        replace(item, outcome=replace(item.outcome, researcher="small", head=f"small{item.name}", is_tpe=True))
        for item in sessions("small", [0.01, 0.011], contested=0, category=Category.CONTROL)
        if item.outcome is not None
    ]
    rows = {item.label: item for item in collection(BEST, TPE, small).boards[0].rows}
    assert rows["llm best-model"].share_of_tpe is not None and rows["small"].group is None


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits(width: int) -> None:
    long = sessions("llm " + "w" * 36, [0.01, 0.02], category=Category.LLM)
    table = shown(collection(BEST, TPE, NEAR, long), width, all_tiers=True)
    lines = table.splitlines()
    assert max(map(len, lines)) <= width
    best = row(table, "best-model")
    assert "+0.0500" in best and "+0.0493 to +0.0508" in best and "reproduced" in best and "●" in best
    assert ("llm" in best.split()[3] and "0.50" in best) == (width == 120)
    assert "2 sessions, no verdict below 5" in table


def test_costs_where_they_are_known() -> None:
    found = collection(BEST, TPE, NEAR)
    costs = {item.label: standings.row_cost_usd(found, item.sessions) for item in found.boards[0].rows}
    assert costs == {"llm best-model": 0.5, "tpe": 0.0, "llm near": None}


def test_an_empty_leaderboard_says_what_to_do() -> None:
    assert "Nothing is published yet." in shown(collection()) and "docs/leaderboard.md" in shown(collection())


def test_bundles_elsewhere_are_counted() -> None:
    absent = replace(BEST[0], bundle=None, outcome=None, category=None, device_class=None, tier=Tier.SELF_REPORTED)
    assert "1 bundle elsewhere: self-reported" in shown(collection([absent], TPE))


def test_strangers_texts_stay_text() -> None:
    hostile = "[red]x[/red]\x1b[2J\u202e"
    table = shown(collection(sessions(hostile, [0.01, 0.02]), TPE), 120, all_tiers=True)
    assert "[red]x[/red]" in table and "\x1b" not in table and "\u202e" not in table


def test_a_terminal_without_unicode() -> None:
    table = shown(collection(BEST, TPE), encoding="ascii")
    assert "o" in row(table, "tpe ") and table.isascii()


def test_a_folder_is_shown_as_json() -> None:
    (board,) = show_standings.as_json(collection(BEST, TPE))
    first = board["rows"][0]
    assert (first["category"], first["tier"], first["contested"], first["mean_cost_usd"]) == (
        "llm",
        "reproduced",
        False,
        0.5,
    )
    assert first["entries"][0] == "llm best-model-s0" and board["key"]["task"] == "demo"


def test_intervals_share_an_axis_with_a_mark_at_zero() -> None:
    rows = [(0.04, 0.03, 0.05), (0.0, -0.01, 0.01), (0.02, None, None), (None, None, None)]
    along = intervals.axis(rows)
    assert (along.low, along.high) == (-0.01, 0.05)
    drawn = [intervals.drawn(*item, along, 13, intervals.ASCII) for item in rows]
    assert drawn == ["  |     [-o-]", "[-o-]        ", "  |   o      ", "  |          "]


def test_a_wild_row_does_not_squeeze_the_others() -> None:
    along = intervals.axis([(0.01, 0.0, 0.02), (0.0, -9.0, 9.0)])
    assert along.high - along.low < 0.2
    assert intervals.drawn(0.0, -9.0, 9.0, along, 9, intervals.ASCII) == "<---o--->"


def test_nothing_to_draw() -> None:
    for rows in ([], [(None, None, None)], [(0.0, None, None)], [(0.0, 0.0, 0.0)]):
        along = intervals.axis(rows)
        assert along.low < 0 < along.high
