"""The table in the terminal: what fits, and that strangers' texts stay text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from published_rows import BEST, NEAR, TPE, collection, retrained, row, sessions, shown

from leaderboard import intervals, page, published_page, show_standings, standings
from leaderboard.published import Category, Tier


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


def test_what_must_be_known_beside_a_rows_figures_is_said_in_the_terminal_and_on_the_page() -> None:
    idle = [
        replace(item, outcome=replace(item.outcome, unchanged=True, num_restarts=seed % 2))
        for seed, item in enumerate(TPE)
        if item.outcome
    ]
    found = collection(idle, BEST)
    table, written = shown(found, 120, all_tiers=True), published_page.sections(found)["rows"]
    for remark in ("tpe: changed nothing in any session: its gain is chance", "tpe: resumed 3 times"):
        assert remark in table and f"- {remark}" in written
    assert "best-model: " not in table


def test_the_legend_names_the_ends_of_what_is_drawn() -> None:
    wild = sessions("llm wild", [0.2, -0.2])
    assert "◂ and ▸ go on beyond" in " ".join(shown(collection(BEST, wild), 120).split())
    assert "go on beyond" not in " ".join(shown(collection(BEST), 120).split())


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


def test_a_page_gets_rows_and_reproductions_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("\n".join(f"<!-- {name} -->\nold\n<!-- end {name} -->" for name in published_page.NAMES) + "\n")
    hostile = sessions("a|b`<i>", [0.01])
    found = collection(retrained(BEST, [0.045, 0.055, 0.051, 0.052, 0.046, 0.053]), TPE, hostile)
    page.fill(path, published_page.sections(found))
    lines = path.read_text().splitlines()
    assert "old" not in lines and r"a\|b\`\<i\>" in next(line for line in lines if line.startswith("| - |"))
    assert sum("| ann, cpu | reproduced (another verdict decides) |" in line for line in lines) == 6
    assert "| 1 | llm best-model | 6 | cpu, Some Processor 9, 2 threads, bfloat16 | +0.0500 (+0.0493 to +0.0508)" in (
        next(line for line in lines if line.startswith("| 1 |"))
    )


def test_boards_of_one_task_have_titles_of_their_own() -> None:
    other = [
        replace(item, outcome=replace(item.outcome, key={**item.outcome.key, "protocol": 3}, head=f"{item.name}-3"))
        for item in TPE
        if item.outcome
    ]
    written = published_page.sections(collection(BEST, TPE, other))["rows"]
    assert "**demo, 6 experiments a session, protocol 2**" in written and "a session, protocol 3**" in written


def test_a_wider_interval_is_said_to_be_one() -> None:
    (made,) = retrained(BEST[:1], [0.05])
    again = replace(made.retrained[0], verdict=replace(made.retrained[0].verdict, confidence=0.975))
    first = published_page.sections(collection([made]))["reproductions"]
    assert ", 97.5 % |" not in first
    assert ", 97.5 % |" in published_page.sections(collection([replace(made, retrained=(again,))]))["reproductions"]
