"""Boards and their rankings: who is ahead of whom, in which tier, and what the page answers."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import published_sessions as sessions
from built_sites import built, built_collection, front, front_of, index, names, rankings, three_rows, with_outcome
from site_pages import Page, broken, parsed

from harness.records import Gain
from leaderboard.aggregate import LeftOut
from leaderboard.published import Category, Published, Tier
from leaderboard.site import tables
from leaderboard.site.links import board_id
from leaderboard.site.titles import told_apart


def test_ties_and_their_brackets(base: Published) -> None:
    page = rankings(front_of(three_rows(base)))["consistent all"]
    assert names(page) == ["best", "near", "tpe", "few"]
    assert [row["data-group"] for row in page.named("tr") if "data-group" in row] == ["1", "2", "2", ""]
    cells = [attributes["class"] for attributes in page.named("td") if attributes.get("class", "").startswith("tie")]
    assert [cell.split() for cell in cells] == [
        ["tie", "first", "last", "g1"],
        ["tie", "first", "g0"],
        ["tie", "last", "g0"],
        ["tie"],
    ]
    assert "no verdict: 2 of 5 sessions" in page.text and "tied with 1 more" in page.text


def test_the_page_opens_with_the_answer_of_the_rows_it_opens_on(base: Published) -> None:
    told = index(front_of(three_rows(base))).text
    assert "By reproduced rows: best alone has a verdict. Its gain over the stock script is +0.0500 bpb" in told
    assert "ahead of" not in told
    tied = index(front(sessions.rows(base, "near", 0.0301), sessions.rows(base, "tpe", 0.03))).text
    assert ": Nobody can be told apart: near and tpe are tied. All of them gain" in tied
    nothing = index(front(sessions.rows(base, "near", 0.0), sessions.rows(base, "tpe", 0.0))).text
    assert "No one's gain over the stock script can be told from zero." in nothing
    few = index(front(sessions.rows(base, "tpe", 0.03, num=2))).text
    assert "No reproduced row has a verdict yet (fewer than 5 sessions, or contested)." in few


def test_an_answer_names_rows_that_nobody_retrained(base: Published) -> None:
    made = [sessions.rows(base, name, gain, tier=Tier.CONSISTENT) for name, gain in (("best", 0.05), ("tpe", 0.03))]
    wanted = "By consistent, not yet reproduced rows: best is ahead of tpe. Its gain"
    assert wanted in index(front(*made)).text
    other = [replace(item, name=f"{item.name}-b") for item in sessions.rows(base, "odd", 0.01, num=5)]
    key = {**(base.outcome.key if base.outcome else {}), "data_sha256": "1" * 64}
    page = index(front(*made, [with_outcome(item, key=key, head=item.name) for item in other]))
    assert ": odd alone has a verdict." in page.text and wanted in page.text
    assert page.text.index("odd alone") < page.text.index(wanted)


def test_who_kept_nothing_neither_gains_nor_loses(base: Published) -> None:
    """Its sessions compare the stock script with itself, and one such row in twenty differs from zero by chance."""
    idle = [with_outcome(item, unchanged=True) for item in sessions.rows(base, "tpe", -0.03)]
    page = front(idle)
    alone = index(page).text
    assert b'class="strip open"' in page["index.html"] and b'class="strip loss"' not in page["index.html"]
    assert "It changed nothing in any session, so this is the stock script against itself: -0.0300 bpb" in alone
    beside = index(front(idle, sessions.rows(base, "best", 0.05))).text
    assert "loses against" not in alone + beside


def test_a_contested_row_has_no_verdict(base: Published) -> None:
    row = [replace(item, contested=True, tier=Tier.CONSISTENT) for item in sessions.rows(base, "tpe", 0.03)]
    told = index(front(row)).text
    assert "row has a verdict yet (fewer than 5 sessions, or contested)." in told and "no verdict: contested" in told


def test_a_chain_of_ties_is_not_called_a_tie(base: Published) -> None:
    """The first differs from the last, and neither from the one between them."""
    errors = {"a": sessions.SPREAD, "b": (0.01, -0.01, 0.012, -0.012, 0.0), "c": sessions.SPREAD[::-1]}
    gains = {"a": 0.03, "b": 0.025, "c": 0.02}
    made = [
        [sessions.again(base, name, seed, gains[name] + error) for seed, error in enumerate(errors[name])]
        for name in gains
    ]
    told = index(front(*made)).text
    assert "a, b and c have no order as a group; some pairs of them differ (the table of tests has them)." in told
    assert "Nobody can be told apart" not in told and "no order of the group as a whole is claimed" in told


def test_an_answer_names_who_loses(base: Published) -> None:
    made = [sessions.rows(base, name, gain) for name, gain in (("near", 0.0301), ("tpe", 0.03), ("bad", -0.03))]
    told = index(front(*made)).text
    assert "near and tpe are tied, ahead of bad. Of the rows with a verdict, a gain over the stock script" in told
    assert "is shown for these only. bad loses against it (95 % interval below zero)." in told


def test_a_study_never_gives_the_answer_and_comes_last(base: Published) -> None:
    assert base.bundle is not None and base.outcome is not None
    state = base.bundle.state
    config = {**state.config, "task": {**state.config["task"], "study": True}}
    bundle = replace(base.bundle, state=replace(state, config=config))
    key = {**base.outcome.key, "task": "alpha"}
    studied = [sessions.rows(base, name, 0.05, bundle=bundle, key=key) for name in ("one", "two")]
    page = index(front(*studied, sessions.rows(base, "tpe", 0.03)))
    assert ": tpe alone has a verdict." in page.text
    assert [item["data-task"] for item in page.named("section") if "data-task" in item] == ["tiny", "alpha"]
    alone = index(front(*studied)).text
    assert "Nobody knows yet: no session of a ranked task" in alone


def test_reproduced_is_not_said_of_a_gain_that_nobody_claimed(base: Published) -> None:
    def row(num_gains: int) -> list[Published]:
        made = sessions.rows(base, "tpe", 0.03, tier=Tier.REPRODUCED)
        return [
            with_outcome(item, confirmed=Gain(3, 0.03, 0.02 if seed < num_gains else -0.02, 0.04, (), ()))
            for seed, item in enumerate(made)
        ]

    told = index(front(row(3))).text
    assert "gain reproduced in 3 of 5; in 2 no gain was claimed, so none had to be found" in told
    assert "no gain was claimed, so none had to be found" in index(front(row(0))).text
    whole = index(front(row(5))).text
    assert "no gain was claimed" not in whole and "none had to be found" in whole
    pages = [Page(built(row(1))[f"session/tiny-tpe-s{seed}.html"].decode()).text for seed in (0, 1)]
    assert ["no gain was claimed, so none had to be found" in page for page in pages] == [False, True]


def test_boards_of_one_task_are_told_apart_by_device(base: Published) -> None:
    other = [
        sessions.rows(base, "tpe", 0.03, device=name * 16, device_class=name, baseline_bpb=value, device_label=name)
        for name, value in (("cpu", 2.0), ("cuda", 2.5))
    ]
    other[1] = [replace(item, name=f"{item.name}-cuda") for item in other[1]]
    other[1] = [replace(i, outcome=replace(i.outcome, head=f"{i.name}")) for i in other[1] if i.outcome]
    found = built(*other)
    page = index(found)
    assert broken(parsed(found), found) == []
    assert "tiny, 6 experiments a session, cpu" in page.text and "tiny, 6 experiments a session, cuda" in page.text
    assert "2 devices, 10 sessions" in page.text and len({*page.values("data-device")}) == 2


def test_devices_of_one_name_are_told_apart_by_their_fingerprints(base: Published) -> None:
    rows = [
        sessions.rows(base, name, 0.03, device=name[0] * 16, device_label="A processor", baseline_bpb=value)
        for name, value in (("aa", 2.0), ("bb", 2.5))
    ]
    other = [sessions.rows(base, "cc", 0.03, device="c" * 16, device_label="Another", baseline_bpb=3.0)]
    found = built(*rows, *other)
    pages = parsed(found)
    for name in ("aaaaaaaa", "bbbbbbbb"):
        page = pages[f"device/{name * 2}.html"]
        assert page.text.count(f"A processor, {name}") >= 3  # title, heading, panel
        assert f"deviceA processor, {name}" in pages["index.html"].text  # its board
        assert f"run on A processor, {name}" in pages[f"session/tiny-{name[:2]}-s0.html"].text
    assert "Another, cccc" not in pages["index.html"].text


def test_boards_of_one_title_are_told_apart_by_what_differs(base: Published) -> None:
    assert base.outcome is not None
    key = {**base.outcome.key, "data_sha256": "1" * 64}
    plain = sessions.rows(base, "tpe", 0.03)
    other = [replace(item, name=f"{item.name}-b") for item in sessions.rows(base, "tpe", 0.03, num=4, key=key)]
    text = index(front(plain, [with_outcome(item, head=item.name) for item in other])).text
    assert "tiny, 6 experiments a session, cpu, data sha256 111111111111" in text
    assert re.search(r"tiny, protocol \d+, data sha256 111111111111", text)
    assert told_apart(["a", "a", "b"], [["x", "1"], ["x", "2"], ["x", "1"]]) == ["a, 1", "a, 2", "b"]
    assert told_apart(["a", "a"], [["x"], ["x"]]) == ["a", "a, no. 2"] and told_apart([], []) == []


def test_the_address_of_a_board_stays_when_a_device_joins_it(base: Published) -> None:
    collection = sessions.collection(sessions.rows(base, "tpe", 0.03))
    (board,) = collection.boards
    later = tuple(replace(item, device="0" * 16, opened_at=item.opened_at + 1) for item in board.rows[0].sessions)
    joined = replace(board, devices=(*board.devices, "a"), rows=(*board.rows, replace(board.rows[0], sessions=later)))
    elsewhere = replace(board, rows=(replace(board.rows[0], sessions=later),))
    assert board_id(joined) == board_id(board) != board_id(elsewhere)
    left_out = tuple(LeftOut(item, "") for item in board.rows[0].sessions)
    gone = replace(elsewhere.rows[0], sessions=(), left_out=left_out)
    assert board_id(replace(elsewhere, rows=(gone,))) == board_id(board)


def test_the_board_opens_on_the_strongest_tier(base: Published) -> None:
    forms = {
        tier: index(front(sessions.rows(base, "tpe", 0.03, tier=tier))) for tier in (Tier.REPRODUCED, Tier.CONSISTENT)
    }
    assert [form.named("form")[0]["data-preset"] for form in forms.values()] == ["reproduced", "consistent"]
    assert "No reproduced row of tiny, 6 experiments a session has a verdict yet" in forms[Tier.CONSISTENT].text
    assert "No reproduced row has a verdict yet" not in forms[Tier.REPRODUCED].text


def test_a_row_is_as_good_as_its_weakest_session(base: Published) -> None:
    row = sessions.rows(base, "tpe", 0.03, tier=Tier.REPRODUCED)
    row[3] = replace(row[3], tier=Tier.CONSISTENT, contested=True)
    (page,) = rankings(front(row)).values()
    assert [name for name in page.values("class") if name.startswith("tier ")] == ["tier consistent"]
    assert "4 of 5 sessions reproduced" in page.text and "1 of 5 sessions contested" in page.text


def test_a_new_session_moves_nothing_in_the_reproduced_ranking(base: Published) -> None:
    """Not even the tier of its row: the page still opens on it."""
    best = sessions.rows(base, "best", 0.05, tier=Tier.REPRODUCED)
    near = sessions.rows(base, "near", 0.0301, tier=Tier.REPRODUCED)
    alone = rankings(front(best, near))["reproduced consistent all"]
    later = sessions.again(base, "best", 5, -0.4, tier=Tier.CONSISTENT)
    found = front(best, near, [later])
    ranking = rankings(found)["reproduced"]
    assert names(ranking) == ["best", "near"] == names(alone)
    assert names(rankings(found)["consistent all"]) == ["near", "best"]
    for name in ("cx", "d", "data-gain", "data-group", "data-sessions"):
        assert ranking.values(name) == alone.values(name), name
    assert "1 later session not reproduced yet" in ranking.text and "not reproduced yet" not in alone.text
    page = index(found)
    assert page.named("form")[0]["data-preset"] == "reproduced"
    assert "By reproduced rows: best is ahead of near." in page.text


def test_rows_that_nobody_retrained_decide_nothing_in_the_reproduced_ranking(base: Published) -> None:
    two = [sessions.rows(base, name, gain, tier=Tier.REPRODUCED) for name, gain in (("best", 0.05), ("tpe", 0.03))]
    others = [sessions.rows(base, name, gain, tier=Tier.CONSISTENT) for name, gain in (("near", 0.0501), ("far", 2.0))]
    alone, found = rankings(front(*two))["reproduced consistent all"], rankings(front(*two, *others))
    assert names(found["consistent all"]) == ["far", "near", "best", "tpe"]
    for name in ("cx", "d", "data-group", "class"):
        assert found["reproduced"].values(name) == alone.values(name), name
    assert "tied" not in "".join(found["reproduced"].words).split("The bar is")[0]


def test_a_contested_row_is_in_the_ranking_of_all_rows_alone(base: Published) -> None:
    row = sessions.rows(base, "odd", 0.06, tier=Tier.REPRODUCED)
    row[4] = replace(row[4], tier=Tier.CONSISTENT, contested=True)
    found = rankings(front(sessions.rows(base, "best", 0.05, tier=Tier.REPRODUCED), row))
    assert {choices: names(page) for choices, page in found.items()} == {
        "reproduced": ["best"], "consistent": ["best"], "all": ["best", "odd"],
    }  # fmt: skip


def test_devices_that_only_all_sessions_show_to_agree_are_ranked_apart(base: Published) -> None:
    best = sessions.rows(base, "best", 0.05, tier=Tier.REPRODUCED, device="a" * 16, device_label="One")
    tpe = sessions.rows(base, "tpe", 0.03, tier=Tier.CONSISTENT, device="b" * 16, device_label="Two")
    found = built(best, [replace(tpe[0], tier=Tier.REPRODUCED), *tpe[1:]])
    page = index(found)
    assert broken(parsed(found), found) == []
    parts = re.findall(r'<div class="ranking" data-choices="([a-z ]+)">\s*<h3>(.*?)</h3>', found["index.html"].decode())
    assert parts == [
        ("reproduced", "Reproduced rows, ranked among themselves: One"),
        ("reproduced", "Reproduced rows, ranked among themselves: Two"),
        ("consistent all", "All rows"),
    ]
    assert "By reproduced rows on One: best alone has a verdict." in page.text and "4 later sessions not" in page.text


def test_a_board_of_two_devices_says_which_row_ran_on_which(base: Published) -> None:
    best = sessions.rows(base, "best", 0.05, device="a" * 16, device_label="One")
    tpe = sessions.rows(base, "tpe", 0.03, device="b" * 16, device_label="Two")
    again = [
        replace(with_outcome(item, head=f"{item.name}-b", device="b" * 16, device_label="Two"), name=f"{item.name}-b")
        for item in best
    ]
    page = index(front_of(built_collection(best, tpe, again)))
    assert "on One" in page.text and "on Two" in page.text
    assert [item["value"] for item in page.named("option") if item["value"] in ("a" * 16, "b" * 16)] == [
        "a" * 16,
        "b" * 16,
    ]
    rows = [item["data-device"] for item in page.named("tr") if "data-row" in item]
    assert sorted(set(rows)) == [f"cpu {'a' * 16}", f"cpu {'b' * 16}"]
    assert (
        "best: 5 sessions left out (seeds 0, 1, 2, 3, 4): its seeds on Two are there from another device" in page.text
    )
    assert page.text.count("left out") >= 6  # and the five beside those that count, with links
    assert {f"session/{item.name}.html" for item in again} <= set(page.values("href"))


def test_the_page_opens_where_a_row_has_a_verdict(base: Published) -> None:
    """One reproduced session is no row yet: it would hide those that have a verdict."""
    row = sessions.rows(base, "tpe", 0.03, tier=Tier.CONSISTENT)
    page = index(front([replace(row[0], tier=Tier.REPRODUCED), *row[1:]]))
    assert page.named("form")[0]["data-preset"] == "consistent"
    assert "By consistent, not yet reproduced rows: tpe alone has a verdict." in page.text


def test_a_label_is_the_same_in_every_ranking(base: Published) -> None:
    """Two researchers of one label are told apart, also where only one of them is shown."""
    made = [
        [with_outcome(item, label="twin") for item in sessions.rows(base, name, 0.05, tier=tier)]
        for name, tier in (("one-twin", Tier.REPRODUCED), ("two-twin", Tier.CONSISTENT))
    ]
    found = front_of(built_collection(*made))
    assert names(rankings(found)["reproduced"]) == ["twin one-"]
    assert "By reproduced rows: twin one- alone has a verdict." in index(found).text


def test_a_table_of_very_many_tests_has_neighbours_and_what_differs(base: Published) -> None:
    """The pairs of 40 rows are 780. In two clusters, 400 of them differ."""
    made = [sessions.rows(base, f"r{number:02d}", 0.05 if number < 20 else 0.01) for number in range(40)]
    (board,) = built_collection(*made).boards
    table = tables.tests(board)
    pairs = {row[0] for row in table.rows}
    assert len(pairs) == 300 and table.note.startswith("480 more pairs: `bpbench leaderboard --json FILE`")
    assert {f"{one.label} minus {other.label}" for one, other in pairwise(board.rows)} <= pairs
    assert sum(row[5] == "different" for row in table.rows) > 250 and table.caption.startswith("Neighbours")
    few = tables.tests(replace(board, comparisons=board.comparisons[:300]))
    assert len(few.rows) == 300 and "more pairs" not in few.note and few.caption.startswith("Every two")


def test_a_row_without_sessions_that_count_has_no_tier(base: Published) -> None:
    page = index(front([sessions.again(base, "gap", 1, 0.03)]))
    assert "0 sessions" in page.text
    assert [span.get("class") for span in page.named("span")].count("tier self-reported") == 1  # what the words mean


def test_who_researched_is_named_and_filtered_by_the_agent(base: Published) -> None:
    assert base.bundle is not None
    state = base.bundle.state
    config = {**state.config, "agent": {**state.config["agent"], "name": "claude_code"}}
    known = replace(base.bundle, state=replace(state, config=config))
    agent = sessions.rows(base, "agent", 0.03, bundle=known, category=Category.EXTERNAL)
    found = front(agent, sessions.rows(base, "other", 0.02, category=Category.EXTERNAL))
    page = index(found)
    kinds = ["coding agent", "other researcher"]
    assert [row["data-category"] for row in page.named("tr") if "data-row" in row] == kinds
    assert [item["value"] for item in page.named("option") if item["value"] in kinds] == kinds
    assert found["index.html"].decode().count(">coding agent<") == 2  # the row and the filter


def test_small_p_values_are_not_zero(base: Published) -> None:
    assert "<0.001" in index(front_of(three_rows(base))).text


def test_a_first_look_answers_only_where_nothing_else_does(base: Published) -> None:
    def on(task: str, gain_bpb: float, num: int, tier: Tier) -> list[Published]:
        key = {**(base.outcome.key if base.outcome else {}), "task": task}
        made = sessions.rows(base, "tpe", gain_bpb, num=num, tier=tier, key=key)
        return [with_outcome(replace(item, name=f"{task}-{item.name}"), head=f"{task}-{item.name}") for item in made]

    first, few = on("demo", 0.03, 5, Tier.REPRODUCED), on("nano", 0.02, 2, Tier.CONSISTENT)
    page = index(front(first, few))
    assert "demo is for a first look: budgets of seconds decide nothing" in page.text
    assert "Not among the reproduced rows, so not in this answer: 1 row of nano" in page.text
    assert "#tier=all" in page.values("href")
    assert [item["data-task"] for item in page.named("section") if "data-task" in item] == ["nano", "demo"]
    wanting = [replace(item, contested=True) for item in few]
    assert "Not among the reproduced rows" not in index(front(first, wanting)).text
    page = index(front(first, on("nano", 0.02, 5, Tier.CONSISTENT)))
    assert ": By consistent, not yet reproduced rows: tpe alone has a verdict. Its gain over" in page.text
    assert "No reproduced row of nano" in page.text and "demo is for a first look" not in page.text
    assert "For a first look: budgets of seconds" in page.text and "Not among the reproduced rows" not in page.text
