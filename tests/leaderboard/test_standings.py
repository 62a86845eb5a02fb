"""Which sessions a row counts, who is ranked on the board of a tier, and what strangers cannot do to a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from published_rows import BEST, LOST, NEAR, SPREAD, TPE, collection, retrained, row, sessions, shown

from harness.records import SessionState
from leaderboard import standings
from leaderboard.bundle import Bundle
from leaderboard.overclaim import overclaims
from leaderboard.published import Category, Published, Retrained, Tier
from leaderboard.verdict import Word


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


def test_seeds_that_one_device_lacks_in_a_tier_are_not_taken_from_another() -> None:
    """The luckier device could be chosen seed by seed: the lines only share no seed because of what was reproduced."""
    here = [replace(item, tier=Tier.REPRODUCED if seed == 0 else Tier.CONSISTENT) for seed, item in enumerate(BEST)]
    there = elsewhere(BEST, "near")
    there[0] = replace(there[0], tier=Tier.CONSISTENT)
    (reproduced,) = standings.of_tier(collection(here, there, TPE), frozenset({Tier.REPRODUCED}))
    best = next(item for item in reproduced.rows if item.label == "llm best-model")
    assert [item.device for item in best.sessions] == ["here"]


def test_a_contested_session_that_does_not_count_keeps_the_row_out_all_the_same() -> None:
    lost = elsewhere(sessions("llm best-model", [0.05, 0.051], contested=1), "near")
    found = collection(BEST, lost, TPE)
    (board,) = found.boards
    best = next(item for item in board.rows if item.label == "llm best-model")
    assert best.num_sessions == 6 and len(best.left_out) == 2
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


def test_claims_that_differ_among_themselves_are_no_shelter() -> None:
    """By their own scatter an excess of 0.16 bpb is not sure; by that of who retrained them it is."""

    def claimed(gains: Sequence[float], half_width: float) -> list[Published]:
        lost = replace(LOST, low_bpb=-half_width, high_bpb=half_width)
        again = (Retrained("ann", "cpu", "here", 0.0, lost),)
        return [replace(item, retrained=again) for item in sessions("llm x", gains)]

    wide = [0.01, 0.05, 0.08, 0.12, 0.3, 0.4]
    assert overclaims(claimed(wide, 0.01)) and overclaims(claimed([0.16] * 6, 0.01))
    assert not overclaims(claimed(wide, 1.0)), "who retrains them cannot tell either"
    assert not overclaims(claimed([value / 20 for value in wide], 0.0)), "never surer than the task's own sigma"


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
