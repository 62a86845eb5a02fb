"""The site's files: what is in them, that everything in them leads somewhere, and that nobody's words are markup."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

import published_sessions as sessions
import pytest
from site_pages import Page, broken, contrast, parsed

from harness.errors import ConfigError
from leaderboard import cli
from leaderboard.published import Category, Collection, Published, Tier
from leaderboard.site.build import MARKER, build, files
from leaderboard.site.links import https, slug

CONTROL = Category.CONTROL


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
    return files(sessions.collection([item for row in rows for item in row]))


def index(found: dict[str, bytes]) -> Page:
    return Page(found["index.html"].decode())


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
        assert not re.search(r"\d{70}|\bnan\b|\binf\b", page.text)
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


def test_the_site_stays_small(base: Published) -> None:
    """Twenty sessions of six experiments and two of twelve, with logs and curves of real length."""
    found = built(sessions.rows(base, "tpe", 0.03), sessions.rows(base, "random", 0.02))
    page = next(len(content) for path, content in found.items() if path.startswith("session/"))
    rest = sum(len(content) for path, content in found.items() if not path.startswith("session/"))
    assert 20 * page + 2 * 2 * page + 2 * rest < 1_500_000
    assert page / 6 < 9_000


def test_ties_and_their_brackets(base: Published) -> None:
    page = index(files(three_rows(base)))
    rows = [attributes for attributes in page.named("tr") if "data-tier" in attributes]
    assert [row["data-name"] for row in rows] == ["best", "near", "tpe", "few"]
    assert [row["data-group"] for row in rows] == ["1", "2", "2", ""]
    cells = [attributes["class"] for attributes in page.named("td") if attributes.get("class", "").startswith("tie")]
    assert [cell.split() for cell in cells] == [
        ["tie", "first", "last", "g1"],
        ["tie", "first", "g0"],
        ["tie", "last", "g0"],
        ["tie"],
    ]
    assert "no verdict: 2 of 5 sessions" in page.text and "tied with 1 more" in page.text


def test_the_page_opens_with_the_answer(base: Published) -> None:
    told = index(files(three_rows(base))).text
    assert "best is ahead of the other 2. Its gain over the stock script is +0.0500 bpb a session" in told
    tied = index(built(sessions.rows(base, "near", 0.0301), sessions.rows(base, "tpe", 0.03))).text
    assert "Nobody can be told apart: near and tpe are tied. All of them gain" in tied
    nothing = index(built(sessions.rows(base, "near", 0.0), sessions.rows(base, "tpe", 0.0))).text
    assert "No one's gain over the stock script can be told from zero." in nothing
    few = index(built(sessions.rows(base, "tpe", 0.03, num=2))).text
    assert "No verdict yet: no researcher has the 5 sessions" in few


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


def test_intervals_are_drawn_where_they_are(base: Published) -> None:
    """Further right is a larger gain, and 0 is where the axis says."""
    page = index(files(three_rows(base)))
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
    page = index(built(row))
    assert [tr["data-tier"] for tr in page.named("tr") if "data-tier" in tr] == ["consistent"]
    assert "4 of 5 sessions reproduced" in page.text and "1 of 5 sessions contested" in page.text


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
    assert "Listed, not checked" in index(found).text
    page = Page(found[f"session/{slug(unseen.name)}.html"].decode())
    assert "nobody has checked it" in page.text and "https://example.org/a.bundle.tar" in page.values("href")


def test_a_session_page_has_its_experiments_and_who_retrained_it(base: Published) -> None:
    page = Page(built([base])[f"session/{slug(base.name)}.html"].decode())
    assert sum(tag == "article" for tag, _ in page.tags) == 6
    for words in (*sessions.IDEAS, "EMBED_LR = 0.6", "a reproducer", "reproduced", "End of the training log"):
        assert words in page.text
    assert any("training loss" in attributes.get("aria-label", "") for attributes in page.named("svg"))


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


def test_the_site_replaces_itself_and_nothing_else(base: Published, tmp_path: Path) -> None:
    target = tmp_path / "site"
    build(sessions.collection([base]), target)
    (target / "old.html").write_text("old")
    num_bytes = build(sessions.collection([]), target)
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) == num_bytes
    assert not (target / "old.html").exists() and not (target / "session").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for place in (other, other / "mine.txt"):
        with pytest.raises(ConfigError, match=r"choose another|a file"):
            build(sessions.collection([]), place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "site"]


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
        for name in (*(f"c{number}" for number in range(7)), "discarded"):
            assert contrast(tokens[name], tokens["paper"]) >= 3.0, name


def test_the_command_builds_a_site_of_a_folder_of_entries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "entries").mkdir()
    target = tmp_path / "site"
    assert cli.main(["site", str(tmp_path / "entries"), "-o", str(target)]) == 0
    assert "0 sessions" in capsys.readouterr().out and "The board is empty" in (target / "index.html").read_text()
    assert cli.main(["site", str(tmp_path / "nowhere"), "-o", str(target)]) != 0
    assert "nowhere" in capsys.readouterr().err
