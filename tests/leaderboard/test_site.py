"""The site's files: what is in them, that everything in them leads somewhere, and that nobody's words are markup."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any, Self

import published_sessions as sessions
import pytest
from site_pages import Page, broken, contrast, mixed, parsed

from harness.errors import ConfigError
from harness.records import Gain
from leaderboard import cli
from leaderboard.installed import task
from leaderboard.portability import Portability
from leaderboard.published import Category, Collection, Published, Tier
from leaderboard.site import charts, devices, tables, words
from leaderboard.site.axis import Axis, around
from leaderboard.site.build import MARKER, build, files, too_large
from leaderboard.site.links import Links, board_id, https, slug
from leaderboard.site.titles import told_apart
from leaderboard.verdict import Word

CONTROL = Category.CONTROL
ENTRIES = PurePosixPath("entries")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """One session with logs and curves of real length."""
    return sessions.one(tmp_path_factory.mktemp("base"), sessions.RESEARCHERS[1], 0)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Everything that strangers write is markup, and numbers are no numbers of a session."""
    made = sessions.one(tmp_path_factory.mktemp("hostile"), sessions.RESEARCHERS[0], 0, sessions.hostile)
    assert made.outcome is not None
    entry = replace(
        made,
        name="../../" + sessions.ATTRIBUTE,
        submitted_by=sessions.HTML,
        link="javascript:owned=1",
        url="http://example.org/plain",
        note=sessions.HTML + sessions.BIDI,
        submitted_on=sessions.ATTRIBUTE,
        device_class="cpu\" data-x='1",
        contested=True,
        retrained=tuple(replace(item, by=sessions.HTML, device_label=sessions.ATTRIBUTE) for item in made.retrained),
    )
    wild = replace(
        made.outcome, head="wild", gain_bpb=1e300, baseline_bpb=-1e300, session_seed=1, opened_at=1e300, device="?\"'<"
    )
    unseen = replace(entry, name="unseen " + sessions.HTML, bundle=None, outcome=None, tier=Tier.SELF_REPORTED)
    return sessions.collection([entry, replace(entry, name="wild", outcome=wild), unseen])


def built(*rows: list[Published]) -> dict[str, bytes]:
    return files(built_collection(*rows))


def built_collection(*rows: list[Published]) -> Collection:
    return sessions.collection([item for row in rows for item in row])


def with_outcome(session: Published, **fields: object) -> Published:
    assert session.outcome is not None
    return replace(session, outcome=replace(session.outcome, **fields))  # type: ignore[arg-type]


def index(found: dict[str, bytes]) -> Page:
    return Page(found["index.html"].decode())


def rankings(found: dict[str, bytes]) -> dict[str, Page]:
    """The tables of rows by the choices of the tier filter that show them."""
    parts = re.findall(
        r'<div class="ranking" data-choices="([a-z ]+)">(.*?)<div class="charts">', found["index.html"].decode(), re.S
    )
    return {choices: Page(part) for choices, part in parts}


def names(ranking: Page) -> list[str]:
    return [row["data-name"] for row in ranking.named("tr") if "data-name" in row]


def three_rows(base: Published) -> Collection:
    return sessions.collection(
        [
            *sessions.rows(base, "best", 0.05, tier=Tier.REPRODUCED, category=Category.LLM),
            *sessions.rows(base, "near", 0.0301, tier=Tier.CONSISTENT, category=CONTROL),
            *sessions.rows(base, "tpe", 0.03, tier=Tier.CONSISTENT, category=CONTROL),
            *sessions.rows(base, "few", 0.09, num=2, tier=Tier.CONSISTENT, device_class="cuda"),
        ]
    )


def test_hostile_words_stay_words(hostile: Collection) -> None:
    found = files(hostile)
    pages = parsed(found)
    assert broken(pages, found) == []
    for path, page in pages.items():
        scripts = [attributes.get("src") for attributes in page.named("script")]
        assert scripts == (["board.js"] if path == "index.html" else [])
        assert not {"img", "iframe", "object", "base", "style"} & {tag for tag, _ in page.tags}
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", found[path].decode())
    everything = " ".join(page.text for page in pages.values())
    assert "<script>window.owned = 1</script>" in everything and "{{ 7 * 7 }}" in everything
    assert '"><img src=x' in everything and "\u05e9\u05dc\u05d5\u05dd" in everything


def test_hostile_addresses_are_no_links(hostile: Collection) -> None:
    found = files(hostile)
    assert all(re.fullmatch(r"[a-z0-9_./-]+|\.[a-z-]+", path) and ".." not in path for path in found)
    for page in parsed(found).values():
        assert not [value for value in page.values("href") if re.match("(?i)javascript|http:", value)]


def test_numbers_that_no_session_has_stay_short(hostile: Collection) -> None:
    for page in parsed(files(hostile)).values():
        assert not re.search(r"\d{70}|(,\d{3}){20}|\bnan\b|\binf\b", page.text)
        for name in ("d", "points", "cx", "x", "x1", "viewBox"):
            for value in page.values(name):
                assert not re.search(r"nan|inf|\d{6}", value), value


def test_long_words_are_cut(hostile: Collection) -> None:
    assert max(map(len, files(hostile).values())) < 120_000


def test_everything_leads_somewhere(base: Published) -> None:
    found = files(three_rows(base), base_url="https://example.org/repo/blob/main/")
    pages = parsed(found)
    assert broken(pages, found) == []
    assert {path.split("/")[0] for path in found} == {
        "index.html", "method.html", "session", "device", "style.css", "board.js", MARKER, ".nojekyll",
    }  # fmt: skip
    assert len([path for path in found if path.startswith("session/")]) == 17
    assert "https://example.org/repo/blob/main/docs/statistics.md" in pages["method.html"].values("href")


def test_every_page_says_what_it_is(base: Published) -> None:
    found = parsed(files(three_rows(base)))
    said = {
        path: meta["content"]
        for path, page in found.items()
        for meta in page.named("meta")
        if meta.get("name") == "description"
    }
    assert said.keys() == found.keys() and min(map(len, said.values())) > 40
    assert said["session/tiny-best-s0.html"].startswith("best on tiny, session seed 0: ")


def test_a_check_of_pages_finds_what_is_broken() -> None:
    page = Page("<h1>a</h1><h3>b</h3><p id=x><a href='gone.html' style='' onclick=''>c</a><a href='#no'>d</a>")
    problems = str(broken({"index.html": page}, {"index.html": b""}))
    assert all(word in problems for word in ("headings", "gone.html", "style", "onclick", "#no", "stays open"))


def test_the_same_collection_gives_the_same_bytes(base: Published) -> None:
    made = three_rows(base)
    mixed = list(made.sessions)
    random.Random(1).shuffle(mixed)
    assert files(made) == files(sessions.collection(mixed)) == files(replace(made, boards=made.boards[::-1]))


def test_every_page_forbids_what_it_does_not_need(base: Published) -> None:
    found = built(sessions.rows(base, "tpe", 0.03, num=1))
    for path, page in parsed(found).items():
        (policy,) = [meta["content"] for meta in page.named("meta") if "default-src" in meta.get("content", "")]
        assert policy.startswith("default-src 'none'; style-src 'self';") and "unsafe" not in policy
        assert ("script-src" in policy) == (path == "index.html") and "http" not in policy
    css = found["style.css"].decode()
    assert "@import" not in css and "url(" not in css and "http" not in css
    assert "http" not in found["board.js"].decode() and "innerHTML" not in found["board.js"].decode()


def test_pages_stay_small(base: Published) -> None:
    """Sessions of six experiments with logs and curves of real length."""
    found = built(sessions.rows(base, "tpe", 0.03), sessions.rows(base, "random", 0.02))
    assert max(len(content) for path, content in found.items() if path.startswith("session/")) < 6 * 9_000
    assert len(found["index.html"]) < 60_000


def test_no_session_makes_its_page_large(base: Published) -> None:
    """Whatever is in scripts and logs: here what takes most room in a page."""
    assert base.bundle is not None
    state = base.bundle.state
    grown = []
    for number, item in enumerate(state.experiments):
        assert item.run is not None
        lines = (f"{number} {line:3d} " + "\"'" * 200 for line in range(300))
        run = replace(item.run, log_tail="'" * 5000, reason="&" * 5000)
        source, idea, note = "\n".join(lines), "<" * 5000, '"' * 5000
        grown.append(replace(item, source=source, kept=True, run=run, rerun=None, hypothesis=idea, note=note))
    bundle = replace(base.bundle, state=replace(state, experiments=tuple(grown)))
    page = built([replace(base, bundle=bundle)])[f"session/{slug(base.name)}.html"]
    assert len(page) < 6 * 40_000 + 20_000
    assert b"more lines are not shown." in page and "… cut: only its end fits here".encode() in page


def test_what_is_too_large_is_named() -> None:
    sizes = {"index.html": 10_000, "session/a.html": 1_600_000, "session/b.html": 1_700_000, "style.css": 20_000}
    (warning,) = too_large(sizes)
    assert "session/b.html (1,700,000 bytes), session/a.html" in warning and "index.html" not in warning
    assert list(too_large({"index.html": 1_500_000})) == []
    many = list(too_large({f"session/{number}.html": 2_000_000 for number in range(600)}))
    assert "and 595 more" in many[0] and "GitHub Pages" in many[1]


def test_ties_and_their_brackets(base: Published) -> None:
    page = rankings(files(three_rows(base)))["consistent all"]
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
    told = index(files(three_rows(base))).text
    assert "By reproduced rows: best alone has a verdict. Its gain over the stock script is +0.0500 bpb" in told
    assert "ahead of" not in told
    tied = index(built(sessions.rows(base, "near", 0.0301), sessions.rows(base, "tpe", 0.03))).text
    assert ": Nobody can be told apart: near and tpe are tied. All of them gain" in tied
    nothing = index(built(sessions.rows(base, "near", 0.0), sessions.rows(base, "tpe", 0.0))).text
    assert "No one's gain over the stock script can be told from zero." in nothing
    few = index(built(sessions.rows(base, "tpe", 0.03, num=2))).text
    assert "No reproduced row has a verdict yet (fewer than 5 sessions, or contested)." in few


def test_an_answer_names_rows_that_nobody_retrained(base: Published) -> None:
    made = [sessions.rows(base, name, gain, tier=Tier.CONSISTENT) for name, gain in (("best", 0.05), ("tpe", 0.03))]
    wanted = "By consistent, not yet reproduced rows: best is ahead of tpe. Its gain"
    assert wanted in index(built(*made)).text
    other = [replace(item, name=f"{item.name}-b") for item in sessions.rows(base, "odd", 0.01, num=5)]
    key = {**(base.outcome.key if base.outcome else {}), "data_sha256": "1" * 64}
    page = index(built(*made, [with_outcome(item, key=key, head=item.name) for item in other]))
    assert ": odd alone has a verdict." in page.text and wanted in page.text
    assert page.text.index("odd alone") < page.text.index(wanted)


def test_a_contested_row_has_no_verdict(base: Published) -> None:
    row = [replace(item, contested=True, tier=Tier.CONSISTENT) for item in sessions.rows(base, "tpe", 0.03)]
    told = index(built(row)).text
    assert "row has a verdict yet (fewer than 5 sessions, or contested)." in told and "no verdict: contested" in told


def test_a_chain_of_ties_is_not_called_a_tie(base: Published) -> None:
    """The first differs from the last, and neither from the one between them."""
    errors = {"a": sessions.SPREAD, "b": (0.01, -0.01, 0.012, -0.012, 0.0), "c": sessions.SPREAD[::-1]}
    gains = {"a": 0.03, "b": 0.025, "c": 0.02}
    made = [
        [sessions.again(base, name, seed, gains[name] + error) for seed, error in enumerate(errors[name])]
        for name in gains
    ]
    told = index(built(*made)).text
    assert "a, b and c have no order as a group; some pairs of them differ (the table of tests has them)." in told
    assert "Nobody can be told apart" not in told and "no order of the group as a whole is claimed" in told


def test_an_answer_names_who_loses(base: Published) -> None:
    made = [sessions.rows(base, name, gain) for name, gain in (("near", 0.0301), ("tpe", 0.03), ("bad", -0.03))]
    told = index(built(*made)).text
    assert "near and tpe are tied, ahead of bad. Of the rows with a verdict, a gain over the stock script" in told
    assert "is shown for these only. bad loses against it (95 % interval below zero)." in told


def test_a_study_never_gives_the_answer_and_comes_last(base: Published) -> None:
    assert base.bundle is not None and base.outcome is not None
    state = base.bundle.state
    config = {**state.config, "task": {**state.config["task"], "study": True}}
    bundle = replace(base.bundle, state=replace(state, config=config))
    key = {**base.outcome.key, "task": "alpha"}
    studied = [sessions.rows(base, name, 0.05, bundle=bundle, key=key) for name in ("one", "two")]
    page = index(built(*studied, sessions.rows(base, "tpe", 0.03)))
    assert ": tpe alone has a verdict." in page.text
    assert [item["data-task"] for item in page.named("section") if "data-task" in item] == ["tiny", "alpha"]
    alone = index(built(*studied)).text
    assert "Nobody knows yet: no session of a ranked task" in alone


def test_reproduced_is_not_said_of_a_gain_that_nobody_claimed(base: Published) -> None:
    def row(num_gains: int) -> list[Published]:
        made = sessions.rows(base, "tpe", 0.03, tier=Tier.REPRODUCED)
        return [
            with_outcome(item, confirmed=Gain(3, 0.03, 0.02 if seed < num_gains else -0.02, 0.04, (), ()))
            for seed, item in enumerate(made)
        ]

    told = index(built(row(3))).text
    assert "gain reproduced in 3 of 5; in 2 no gain was claimed and retraining agrees" in told
    assert "no gain was claimed, and retraining agrees" in index(built(row(0))).text
    whole = index(built(row(5))).text
    assert "no gain was claimed" not in whole and "the retraining agrees" in whole
    pages = [Page(built(row(1))[f"session/tiny-tpe-s{seed}.html"].decode()).text for seed in (0, 1)]
    assert ["no gain was claimed, and retraining agrees" in page for page in pages] == [False, True]


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
    text = index(built(plain, [with_outcome(item, head=item.name) for item in other])).text
    assert "tiny, 6 experiments a session, cpu, data sha256 111111111111" in text
    assert re.search(r"tiny, protocol \d+, data sha256 111111111111", text)
    assert told_apart(["a", "a", "b"], [["x", "1"], ["x", "2"], ["x", "1"]]) == ["a, 1", "a, 2", "b"]
    assert told_apart(["a", "a"], [["x"], ["x"]]) == ["a", "a, no. 2"] and told_apart([], []) == []


def test_the_address_of_a_board_stays_when_a_device_joins_it(base: Published) -> None:
    (board,) = sessions.collection(sessions.rows(base, "tpe", 0.03)).boards
    later = tuple(replace(item, device="0" * 16, opened_at=item.opened_at + 1) for item in board.rows[0].sessions)
    joined = replace(board, devices=(*board.devices, "a"), rows=(*board.rows, replace(board.rows[0], sessions=later)))
    elsewhere = replace(board, rows=(replace(board.rows[0], sessions=later),))
    assert board_id(joined) == board_id(board) != board_id(elsewhere)


def test_intervals_are_drawn_where_they_are(base: Published) -> None:
    """Further right is a larger gain, and 0 is where the axis says."""
    page = rankings(files(three_rows(base)))["consistent all"]
    strips = [svg["aria-label"] for svg in page.named("svg") if svg.get("class", "").startswith("strip gain")]
    assert strips[0].startswith("best: mean gain +0.0500 bpb, 95 % interval +0.04")
    means = [float(attributes["cx"]) for attributes in page.named("circle") if attributes.get("class") == "mean"]
    paths = page.named("path")
    zero = next(float(path["d"].split()[0][1:]) for path in paths if path.get("class") == "zero" and "v34" in path["d"])
    assert means[3] > means[0] > means[1] >= means[2] > zero
    assert means[0] - zero == pytest.approx((means[1] - zero) * 0.05 / 0.0301, abs=0.3)
    # The interval of two sessions would leave no room for the others: an arrow at the edge says that it goes on.
    assert [path["d"] for path in paths if path.get("class") == "cut"] == ["M306 7l6 5-6 5z"]


def test_the_board_opens_on_the_strongest_tier(base: Published) -> None:
    forms = {
        tier: index(built(sessions.rows(base, "tpe", 0.03, tier=tier))) for tier in (Tier.REPRODUCED, Tier.CONSISTENT)
    }
    assert [form.named("form")[0]["data-preset"] for form in forms.values()] == ["reproduced", "consistent"]
    assert "No row is reproduced yet" in forms[Tier.CONSISTENT].text
    assert "No row is reproduced yet" not in forms[Tier.REPRODUCED].text


def test_a_row_is_as_good_as_its_weakest_session(base: Published) -> None:
    row = sessions.rows(base, "tpe", 0.03, tier=Tier.REPRODUCED)
    row[3] = replace(row[3], tier=Tier.CONSISTENT, contested=True)
    (page,) = rankings(built(row)).values()
    assert [name for name in page.values("class") if name.startswith("tier ")] == ["tier consistent"]
    assert "4 of 5 sessions reproduced" in page.text and "1 of 5 sessions contested" in page.text


def test_a_new_session_moves_nothing_in_the_reproduced_ranking(base: Published) -> None:
    """Not even the tier of its row: the page still opens on it."""
    best = sessions.rows(base, "best", 0.05, tier=Tier.REPRODUCED)
    near = sessions.rows(base, "near", 0.0301, tier=Tier.REPRODUCED)
    alone = rankings(built(best, near))["reproduced consistent all"]
    later = sessions.again(base, "best", 5, -0.4, tier=Tier.CONSISTENT)
    found = built(best, near, [later])
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
    alone, found = rankings(built(*two))["reproduced consistent all"], rankings(built(*two, *others))
    assert names(found["consistent all"]) == ["far", "near", "best", "tpe"]
    for name in ("cx", "d", "data-group", "class"):
        assert found["reproduced"].values(name) == alone.values(name), name
    assert "tied" not in "".join(found["reproduced"].words).split("The bar is")[0]


def test_a_contested_row_is_in_the_ranking_of_all_rows_alone(base: Published) -> None:
    row = sessions.rows(base, "odd", 0.06, tier=Tier.REPRODUCED)
    row[4] = replace(row[4], tier=Tier.CONSISTENT, contested=True)
    found = rankings(built(sessions.rows(base, "best", 0.05, tier=Tier.REPRODUCED), row))
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
    assert "By reproduced rows: best alone has a verdict." in page.text and "4 later sessions not" in page.text


def test_a_label_is_the_same_in_every_ranking(base: Published) -> None:
    """Two researchers of one label are told apart, also where only one of them is shown."""
    made = [
        [with_outcome(item, label="twin") for item in sessions.rows(base, name, 0.05, tier=tier)]
        for name, tier in (("one-twin", Tier.REPRODUCED), ("two-twin", Tier.CONSISTENT))
    ]
    found = files(built_collection(*made))
    assert names(rankings(found)["reproduced"]) == ["twin one-"]
    assert "By reproduced rows: twin one- alone has a verdict." in index(found).text


def test_costs_are_drawn_when_somebody_has_one(base: Published) -> None:
    control = sessions.rows(base, "tpe", 0.03, category=CONTROL)
    assert "no row with a known price" in index(built(control)).text
    assert base.bundle is not None
    model = sessions.rows(base, "model", 0.04, category=Category.LLM, bundle=sessions.priced(base.bundle, 0.84))
    told = index(built(control, model)).text
    assert "no row with a known price" not in told and "$0.84" in told and "model: 0.84 dollars" in told


def test_without_a_language_model_the_page_says_how_one_gets_there(base: Published) -> None:
    command = "bpbench run -m agent=llm llm=claude_sonnet session.seed=0,1,2,3,4 --yes"
    control = index(built(sessions.rows(base, "tpe", 0.03, category=CONTROL))).text
    model = index(built(sessions.rows(base, "model", 0.03, category=Category.LLM))).text
    assert "No language model is on the board yet" in control and "No language model" not in model
    assert command in control and command in model


def test_an_empty_board_is_a_page() -> None:
    found = built()
    page = index(found)
    assert broken(parsed(found), found) == []
    assert "The board is empty" in page.text and not page.named("form") and not page.named("table")


def test_a_session_without_a_bundle_has_a_page(base: Published) -> None:
    unseen = replace(base, bundle=None, outcome=None, tier=Tier.SELF_REPORTED, url="https://example.org/a.bundle.tar")
    found = built([unseen])
    page = index(found)
    assert "Published, not checked here" in page.text and "what is published has not been checked here" in page.text
    assert "Nothing has been published" not in page.text
    page = Page(found[f"session/{slug(unseen.name)}.html"].decode())
    assert "not checked here, for its bundle is elsewhere" in page.text
    assert "https://example.org/a.bundle.tar" in page.values("href")


def test_a_session_page_has_its_experiments_and_who_retrained_it(base: Published) -> None:
    page = Page(built([base])[f"session/{slug(base.name)}.html"].decode())
    assert sum(tag == "article" for tag, _ in page.tags) == 6
    for said in (*sessions.IDEAS, "EMBED_LR = 0.6", "a reproducer", "reproduced", "End of the training log"):
        assert said in page.text
    labels = [label for label in page.values("aria-label") if re.match(r"Experiment \d", label)]
    assert len(set(labels)) == 6
    assert re.fullmatch(r"Experiment 1: training loss from \d[\d.]+ to .* over \d.*; the baseline's from .*", labels[0])
    scrolling = [pre for pre in page.named("pre") if pre["aria-label"] != "Commands"]
    assert len({pre["aria-label"] for pre in scrolling}) == len(scrolling) >= 10
    assert all(pre["tabindex"] == "0" and pre["role"] == "group" for pre in scrolling)


def test_bundles_are_found_beside_the_entries_or_at_their_own_address(base: Published) -> None:
    made = sessions.collection([base])
    path = f"session/{slug(base.name)}.html"
    bare = files(made, bundles=PurePosixPath("entries"))[path].decode()
    assert f"<code>entries/{base.name}.bundle.tar</code>" in bare
    linked = Page(files(made, base_url="https://example.org/r")[path].decode())
    assert f"https://example.org/r/leaderboard/entries/{base.name}.bundle.tar" in linked.values("href")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "javascript:alert(1)",
        "https://",
        "https://a b",
        "https://user@example.org/",
        'https://example.org/"onclick=',
        "https://[::1",
        "//example.org",
        "https://" + "a" * 400,
    ],
)
def test_only_plain_https_is_a_link(url: str, base: Published, tmp_path: Path) -> None:
    assert https(url) is None
    with pytest.raises(ConfigError, match="--base-url"):
        build(sessions.collection([base]), tmp_path / "site", base_url=url)
    assert list(tmp_path.iterdir()) == []


def test_names_make_file_names_that_cannot_meet() -> None:
    names = ["a", "A", "../a", "a/b", "x", "con", "a" * 200, "", "\u00e4", slug("A"), "."]
    made = [slug(name) for name in names]
    assert len(set(made)) == len(names) and all(re.fullmatch("[a-z0-9_-]{1,80}", name) for name in made)


def test_one_odd_row_leaves_the_others_their_room(base: Published) -> None:
    odd = sessions.rows(base, "odd", 1000.0, num=1, baseline_bpb=1e8)
    page = index(built(sessions.rows(base, "best", 0.05), odd))
    means = [float(attributes["cx"]) for attributes in page.named("circle") if attributes.get("class") == "mean"]
    zeros = [path["d"] for path in page.named("path") if path.get("class") == "zero" and "v34" in path["d"]]
    zero = float(zeros[0].split()[0][1:])
    assert means[0] - zero > 200 and means[1] == 306
    (panel,) = devices.panels([*sessions.rows(base, "best", 0.05), *odd], Links(None, ENTRIES, {}))
    assert panel.scale.axis.high < 9


def test_runs_worse_than_the_axis_reaches_are_arrows_and_said_to_be(base: Published) -> None:
    assert base.bundle is not None
    path = f"session/{slug(base.name)}.html"
    plain = Page(built([base])[path].decode())
    assert "worse than the axis reaches" not in plain.text and "worse" not in plain.values("class")
    state = base.bundle.state
    item = next(item for item in state.experiments if not item.kept and item.val_bpb is not None)
    worse = tuple(replace(other, val_bpb=9.0) if other is item else other for other in state.experiments)
    bundle = replace(base.bundle, state=replace(state, experiments=worse))
    page = Page(built([replace(base, bundle=bundle)])[path].decode())
    (arrow,) = [path["d"] for path in page.named("path") if path.get("class") == "worse"]
    assert " 12l" in arrow and "1 worse than the axis reaches" in page.text  # at the upper edge


def test_the_band_of_a_panel_is_the_sigma_that_decides_about_devices(base: Published) -> None:
    """Whatever sessions say of theirs."""
    known = task("demo")
    assert known is not None and base.outcome is not None
    key = {**base.outcome.key, "task": "demo"}
    made = [with_outcome(item, key=key, baseline_bpb=2.0, sigma_bpb=0.5) for item in sessions.rows(base, "tpe", 0.03)]
    (panel,) = devices.panels(made, Links(None, ENTRIES, {}))
    assert panel.scale.band is not None
    x, width = map(float, panel.scale.band)
    assert (x, x + width) == pytest.approx(
        [panel.scale.axis.at(2.0 + sign * known.sigma_prior_bpb) for sign in (-1, 1)], abs=0.2
    )
    assert "one seed-to-seed sigma of the task" in panel.sentence


def test_many_rows_stay_within_their_chart(base: Published) -> None:
    page = index(built(*(sessions.rows(base, f"row{number:02d}", 0.01 * number) for number in range(15))))
    assert "up is better; 3 more in the table" in page.text
    assert sum(value.startswith("series ") for value in page.values("class")) == 12


def test_the_charts_of_a_ranking_are_of_its_sessions(base: Published) -> None:
    """There is room for twelve rows; the reproduced one is the worst of fourteen, and has a seed more."""
    made = [sessions.rows(base, f"row{number:02d}", 0.5 - 0.01 * number, tier=Tier.CONSISTENT) for number in range(13)]
    last = sessions.rows(base, "last", 0.01, tier=Tier.REPRODUCED)
    later = sessions.again(base, "last", 5, 1.0, tier=Tier.CONSISTENT)
    drawn = [item["data-row"] for item in index(built(*made, last)).named("g") if "data-row" in item]
    assert drawn == ["13", *map(str, range(12))]
    assert later.outcome is not None
    higher = tuple(replace(point, gain_bpb=point.gain_bpb + 1.0) for point in later.outcome.anytime)
    alone, both = (
        re.findall(r'<polyline points="([^"]*)"', built(last, *more)["index.html"].decode())
        for more in ([], [[with_outcome(later, anytime=higher)]])
    )
    assert both[0] == alone[0] and len(both) == 2


def test_rows_without_a_known_price_are_counted(base: Published) -> None:
    assert base.bundle is not None
    model = sessions.rows(base, "model", 0.04, category=Category.LLM, bundle=sessions.priced(base.bundle, 0.84))
    other = sessions.rows(base, "agent", 0.03, category=Category.EXTERNAL)
    assert "up is better; 1 without a known price" in index(built(model, other)).text


def test_a_table_of_very_many_tests_has_neighbours_and_what_differs(base: Published) -> None:
    """The pairs of 40 rows are 780. In two clusters, 400 of them differ."""
    made = [sessions.rows(base, f"r{number:02d}", 0.05 if number < 20 else 0.01) for number in range(40)]
    (board,) = built_collection(*made).boards
    table = tables.tests(board)
    pairs = {row[0] for row in table.rows}
    assert len(pairs) == 300 and table.note.startswith("480 more pairs: `bpbench leaderboard --json FILE`")
    assert {f"{one.label} - {other.label}" for one, other in pairwise(board.rows)} <= pairs
    assert sum(row[5] == "different" for row in table.rows) > 250 and table.caption.startswith("Neighbours")
    few = tables.tests(replace(board, comparisons=board.comparisons[:300]))
    assert len(few.rows) == 300 and not few.note and few.caption.startswith("Every two")


def test_short_names_differ() -> None:
    assert charts.shorts(["llm a/one", "tpe"]) == ["one", "tpe"]
    names = ["llm x/claude-opus-large-20250514", "llm x/claude-opus-large-20260101", "llm y/claude-opus-large-20260101"]
    for given in (names, ["llm a/x", "llm b/x"], ["same", "same"], ["w" * 40, "w" * 39]):
        made = charts.shorts(given)
        assert len(set(made)) == len(given) and max(map(len, made)) <= 17


def test_equal_values_have_an_axis_that_can_be_read() -> None:
    axis = around([1.5, 1.5], 0, 100)
    assert axis.high - axis.low > 1e-3 and axis.at(1.5) == pytest.approx(50)
    assert Axis(0, 1, 0, 1).ticks(4, whole=True) == [0, 1] and Axis(0, 10, 0, 1).ticks(4, whole=True) == [0, 5, 10]
    assert Axis(0, 10, 0, 1).ticks(4) == [0, 2.5, 5, 7.5, 10]


def test_a_row_without_sessions_that_count_has_no_tier(base: Published) -> None:
    page = index(built([sessions.again(base, "gap", 1, 0.03)]))
    assert "0 sessions" in page.text
    assert [span.get("class") for span in page.named("span")].count("tier self-reported") == 1  # what the words mean


def test_who_researched_is_named_and_filtered_by_the_agent(base: Published) -> None:
    assert base.bundle is not None
    state = base.bundle.state
    config = {**state.config, "agent": {**state.config["agent"], "name": "claude_code"}}
    known = replace(base.bundle, state=replace(state, config=config))
    agent = sessions.rows(base, "agent", 0.03, bundle=known, category=Category.EXTERNAL)
    found = built(agent, sessions.rows(base, "other", 0.02, category=Category.EXTERNAL))
    page = index(found)
    kinds = ["coding agent", "other researcher"]
    assert [row["data-category"] for row in page.named("tr") if "data-row" in row] == kinds
    assert [item["value"] for item in page.named("option") if item["value"] in kinds] == kinds
    assert found["index.html"].decode().count(">coding agent<") == 2  # the row and the filter


def test_a_session_that_kept_nothing_says_so(base: Published) -> None:
    assert base.bundle is not None
    state = base.bundle.state
    dropped = replace(state, experiments=tuple(replace(item, kept=False) for item in state.experiments))
    for item, nothing in ((base, False), (replace(base, bundle=replace(base.bundle, state=dropped)), True)):
        text = Page(built([item])[f"session/{slug(base.name)}.html"].decode()).text
        assert ("No experiment was kept" in text) == ("stock script again, test bpb" in text) == nothing


def test_the_submitter_speaks_below_the_figures(base: Published) -> None:
    text = Page(built([replace(base, note="We tuned it.")])[f"session/{slug(base.name)}.html"].decode()).text
    assert "The submitter says: We tuned it." in text
    assert text.index("gain on test, bpb") < text.index("The submitter says:")


def test_reproductions_that_decide_are_marked_and_contesting_ones_come_first(base: Published) -> None:
    (made,) = base.retrained
    lost = replace(made, by="doubter", verdict=replace(made.verdict, word=Word.NOT_REPRODUCED))
    many = tuple(replace(made, by=f"r{number:02d}", counts=False) for number in range(25))
    page = Page(built([replace(base, retrained=(*many, lost))])[f"session/{slug(base.name)}.html"].decode())
    assert page.text.index("doubternot reproducedyes") < page.text.index("r00reproducedno")
    assert "and 6 more" in page.text and "r18" in page.text and "r19" not in page.text
    assert "retrained by" not in page.text  # nobody whose verdict counts agreed


def test_a_device_page_says_who_recorded_it(base: Published) -> None:
    found = built([base])
    (path,) = [path for path in found if path.startswith("device/")]
    assert f"As session {base.name} recorded it" in Page(found[path].decode()).text
    assert b"<dt>bpbench</dt>" not in found[path]


def test_the_pages_claim_what_is_so(base: Published) -> None:
    page = index(files(three_rows(base)))
    for claim in (
        "a fixed number of experiments and a calibrated budget",
        "Gains follow from the records of published bundles, which bpbench verify recomputes.",
        "Researchers on tiny, 6 experiments a session, in the order of the ranking",
        "published, not checked here: the bundle is elsewhere",
    ):
        assert claim in page.text, claim
    (board,) = sessions.collection(sessions.rows(base, "tpe", 0.03)).boards
    pooled = replace(board, portability=Portability(("a", "b"), 0.001, 0.0042))
    bound = "Devices are pooled: their stock baselines differ by 0.0010 bpb at most (95 % bound 0.0042)."
    assert bound in list(words.notes(pooled))


def test_the_curve_says_what_it_is_made_of(base: Published) -> None:
    told = index(files(three_rows(base))).text
    assert "val scores of kept changes, selected and so biased upwards" in told


def test_small_p_values_are_not_zero(base: Published) -> None:
    assert "<0.001" in index(files(three_rows(base))).text


def test_the_site_replaces_itself_and_nothing_else(base: Published, tmp_path: Path) -> None:
    target = tmp_path / "site"
    build(sessions.collection([base]), target)
    (target / "session" / "old.html").write_text("old")
    num_bytes = build(sessions.collection([]), target).num_bytes
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) == num_bytes
    assert not (target / "session").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for place in (other, other / "mine.txt"):
        with pytest.raises(ConfigError, match=r"choose another|a file"):
            build(sessions.collection([]), place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "site"]


@pytest.mark.parametrize("name", [".git", "CNAME", "mine"])
def test_a_folder_with_more_than_a_site_in_it_is_not_replaced(name: str, tmp_path: Path) -> None:
    target = tmp_path / "site"
    build(sessions.collection([]), target)
    (target / name).mkdir()
    with pytest.raises(ConfigError, match=f"holds '{name}', which no site has"):
        build(sessions.collection([]), target)
    assert (target / name).is_dir() and (target / "index.html").is_file()


class Interrupted(PosixPath):
    """Somebody interrupts when the old site has been moved away and the new one is not there yet."""

    def rename(self, target: Any) -> Self:
        if ".new." in self.name:
            raise KeyboardInterrupt
        return super().rename(target)


def test_an_interrupted_build_leaves_the_old_site(base: Published, tmp_path: Path) -> None:
    target = tmp_path / "site"
    build(sessions.collection([base]), target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        build(sessions.collection([]), Interrupted(target))
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_letters_can_be_read_on_both_papers() -> None:
    css = files(sessions.collection([]))["style.css"].decode()
    light, dark = (dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", part)) for part in css.split("@media", 2)[:2])
    assert len(light) == len(dark) > 20
    for tokens in (light, dark):
        for paper in ("paper", "panel"):
            for ink in ("ink", "muted", "kept", "failed", "gain"):
                assert contrast(tokens[ink], tokens[paper]) >= 4.5, (ink, paper)
        for pair in (("add", "add-bg"), ("del", "del-bg"), ("hunk", "panel"), ("paper", "kept"), ("paper", "gain")):
            assert contrast(tokens[pair[0]], tokens[pair[1]]) >= 4.5, pair
        for number in range(7):  # names beside charts
            assert contrast(tokens[f"c{number}"], tokens["paper"]) >= 4.5, number
        for rule in (".curve .stock", ".key.stock::before", ".g0::before"):
            used = re.search(re.escape(rule) + r" \{[^}]*var\(--([a-z0-9]+)\); \}", css)
            assert used and contrast(tokens[used.group(1)], tokens["paper"]) >= 3.0, rule
        dots = re.search(r"\.strip \.dot \{ fill: var\(--ink\); opacity: ([.\d]+); \}", css)
        assert dots and contrast(mixed(tokens["ink"], tokens["paper"], float(dots.group(1))), tokens["paper"]) >= 3.0
        arrow = re.search(r"\.sortable button::after \{[^}]*opacity: ([.\d]+); \}", css)
        assert arrow
        assert contrast(mixed(tokens["muted"], tokens["paper"], float(arrow.group(1))), tokens["paper"]) >= 3.0
        leaders = re.search(r"\.series \.leader \{ stroke-width: 1; opacity: ([.\d]+);", css)
        bars = re.search(r"\.series \.bar \{ stroke-width: 2; opacity: ([.\d]+); \}", css)
        for number in range(7):
            for opacity in (bars, leaders):
                line = mixed(tokens[f"c{number}"], tokens["paper"], float(opacity.group(1)) if opacity else 0)
                assert contrast(line, tokens["paper"]) >= 3.0, (number, opacity)


def test_the_command_builds_a_site_of_a_folder_of_entries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "entries").mkdir()
    target = tmp_path / "site"
    assert cli.main(["site", str(tmp_path / "entries"), "-o", str(target)]) == 0
    assert "0 sessions" in capsys.readouterr().out and "The board is empty" in (target / "index.html").read_text()
    assert cli.main(["site", str(tmp_path / "nowhere"), "-o", str(target)]) != 0
    assert "nowhere" in capsys.readouterr().err
