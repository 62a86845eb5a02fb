"""The site's files: what is in them, that everything in them leads somewhere, and that nobody's words are markup."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any, Self

import published_sessions as sessions
import pytest
from built_sites import built, three_rows
from site_pages import Page, broken, contrast, mixed, parsed

from harness.errors import ConfigError
from leaderboard import cli
from leaderboard.published import Collection, Published, Tier
from leaderboard.site.build import MARKER, build, files, too_large
from leaderboard.site.links import https, slug


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
    (target / "session" / "old.html").write_text("old")
    (target / ".DS_Store").write_text("where a window was on a Mac")
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
