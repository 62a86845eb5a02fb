"""The site in a real browser, from file://: filters, keyboard, hostile words, phones, light and dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import published_sessions as sessions
import pytest

from leaderboard.published import Category, Tier
from leaderboard.site.build import build

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = {"width": 375, "height": 800}


@dataclass
class Watched:
    """A page, and whatever it complained about or asked for."""

    page: Page
    site: Path
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        # A change of the fragment alone would not load the page again.
        self.page.goto("about:blank")
        self.page.goto((self.site / path.partition("#")[0]).as_uri() + "#" + path.partition("#")[2])
        return self.page

    def rows(self) -> list[str]:
        """The researchers that can be seen."""
        shown = self.page.locator(".board .rows tbody tr:visible")
        return [shown.nth(number).get_attribute("data-name") or "" for number in range(shown.count())]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = sessions.one(tmp_path_factory.mktemp("base"), sessions.RESEARCHERS[1], 0)
    bad = sessions.one(tmp_path_factory.mktemp("bad"), sessions.RESEARCHERS[0], 0, sessions.hostile)
    assert base.bundle is not None
    priced = sessions.priced(base.bundle, 0.84)
    words = {"name": "hostile", "note": sessions.HTML, "submitted_by": sessions.LONG, "url": "https://example.org/x"}
    made = [
        *sessions.rows(base, "best", 0.05, tier=Tier.REPRODUCED, category=Category.LLM, bundle=priced),
        *sessions.rows(base, "near", 0.0301, tier=Tier.REPRODUCED, category=Category.CONTROL),
        *sessions.rows(base, "tpe", 0.03, tier=Tier.CONSISTENT, category=Category.CONTROL),
        *sessions.rows(base, "few", 0.09, num=2, category=Category.EXTERNAL, device_class="cuda", tier=Tier.CONSISTENT),
        replace(bad, tier=Tier.CONSISTENT, **words),  # type: ignore[arg-type]
        replace(bad, name="unseen", bundle=None, outcome=None, tier=Tier.SELF_REPORTED),
    ]
    target = tmp_path_factory.mktemp("built") / "site"
    build(sessions.collection(made), target)
    return target


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as player:
        started = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield started
        started.close()


@pytest.fixture
def watched(browser: Browser, site: Path) -> Iterator[Watched]:
    """Fails if anything was said on the console, went wrong or was asked of another place than the site."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    found = Watched(context.new_page(), site)
    here = site.as_uri()
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("dialog", lambda dialog: found.complaints.append(dialog.message))
    found.page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((here, "data:image/svg+xml", "about:"))
            else found.complaints.append(request.url)
        ),
    )
    yield found
    context.close()
    assert found.complaints == []


def pages(site: Path) -> list[str]:
    """One of each kind, and those with hostile words."""
    return ["index.html", "method.html", "session/hostile.html", "session/unseen.html", "session/tiny-best-s0.html"] + [
        f"device/{path.name}" for path in sorted((site / "device").iterdir())
    ]


def test_the_board_opens_on_reproduced_rows(watched: Watched) -> None:
    page = watched.open("index.html")
    assert watched.rows() == ["best", "near"]
    assert page.inner_text("#shown") == "2 of 5 rows shown"
    assert page.locator("section.board:visible").count() == 1
    page.click("#all")
    assert watched.rows()[:4] == ["best", "near", "tpe", "few"] and page.inner_text("#shown") == "5 of 5 rows shown"
    assert not page.is_visible("#all") and page.locator("section.board:visible").count() == 2


def test_filters_narrow_announce_and_are_kept_in_the_address(watched: Watched) -> None:
    page = watched.open("index.html")
    page.select_option("[name=tier]", "consistent")
    page.select_option("[name=category]", "control")
    assert watched.rows() == ["near", "tpe"] and page.inner_text("#shown") == "2 of 5 rows shown"
    assert page.evaluate("location.hash") == "#category=control&tier=consistent"
    page.select_option("[name=device]", "cuda")
    assert watched.rows() == [] and page.is_visible("#none") and page.inner_text("#shown") == "0 of 5 rows shown"
    watched.open("index.html#device=cuda&tier=all")
    assert watched.rows() == ["few"] and page.input_value("[name=device]") == "cuda"
    watched.open("index.html#device=nonsense&category=<script>&other=1")
    assert watched.rows() == ["best", "near"] and page.input_value("[name=device]") == ""


def test_links_to_places_in_the_page_keep_the_filters_in_the_address(watched: Watched) -> None:
    page = watched.open("index.html#category=control&tier=consistent")
    for link, place in ((".skip", "main"), ("nav a[href$='#add']", "add")):
        page.focus(link)
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == place
        page.wait_for_function(
            "place => Math.abs(document.getElementById(place).getBoundingClientRect().top) < innerHeight", arg=place
        )
        assert page.evaluate("location.hash") == "#category=control&tier=consistent"
    page.reload()
    assert watched.rows() == ["near", "tpe"]
    watched.open("index.html").click("nav a[href$='#add']")
    assert page.evaluate("location.hash") == "#add"


RESTORED = """document.addEventListener('readystatechange', () => {
  const form = document.getElementById('filters');
  if (form && document.readyState === 'interactive') form.elements.sort.value = 'name';
})"""


def test_the_choice_of_an_order_starts_with_what_is_shown(watched: Watched) -> None:
    """Whatever a browser brings back after a reload."""
    watched.page.add_init_script(RESTORED)
    page = watched.open("index.html")
    assert page.get_attribute("#filters", "autocomplete") == "off" and page.input_value("[name=sort]") == ""


def test_an_address_of_a_board_shows_all_of_it(watched: Watched) -> None:
    page = watched.open("index.html")
    board = page.locator("section.board").last.get_attribute("id")
    watched.open(f"index.html#{board}")
    assert page.is_visible(f"#{board}")
    page.select_option("[name=board]", str(board))
    assert page.locator("section.board:visible").count() == 1


def test_filters_work_from_the_keyboard(watched: Watched) -> None:
    page = watched.open("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    page.focus("[name=tier]")
    page.keyboard.press("ArrowDown")
    assert page.input_value("[name=tier]") == "consistent" and watched.rows()[:2] == ["best", "near"]
    page.focus(".ranking:visible .count summary")
    page.keyboard.press("Enter")
    assert page.is_visible(".ranking:visible >> text=seed 0")


def test_rows_are_sorted_and_come_back(watched: Watched) -> None:
    page = watched.open("index.html#tier=all")
    ranking = page.locator(".ranking:visible").first
    heading = ranking.locator("th[data-key=name]")
    order = []
    for _ in range(3):
        heading.locator("button").click()
        order.append((heading.get_attribute("aria-sort"), watched.rows()[:4]))
    assert order == [
        ("ascending", ["best", "few", "near", "tpe"]),
        ("descending", ["tpe", "near", "few", "best"]),
        (None, ["best", "near", "tpe", "few"]),
    ]
    ranking.locator("th[data-key=cost] button").click()
    assert watched.rows()[:4] == ["near", "tpe", "best", "few"]  # $0, $0, $0.84, unknown


def test_the_bracket_of_a_tie_ends_with_what_is_shown(watched: Watched) -> None:
    page = watched.open("index.html")
    tie = page.locator(".ranking:visible tr[data-name=near] .tie")
    assert {"first", "last"} <= set((tie.get_attribute("class") or "").split())
    page.click("#all")
    assert "last" not in (tie.get_attribute("class") or "").split()
    page.evaluate("document.querySelectorAll('tr[data-name=tpe]').forEach(row => { row.dataset.device = 'other' })")
    page.select_option("[name=device]", "cpu")
    assert watched.rows()[:2] == ["best", "near"] and "last" in (tie.get_attribute("class") or "").split()


def test_every_tier_has_a_ranking_of_its_own(watched: Watched) -> None:
    page = watched.open("index.html")
    near = page.locator(".ranking:visible tr[data-name=near] .tie")
    assert "tied" not in near.inner_text() and page.locator(".ranking:visible").count() == 1
    page.select_option("[name=tier]", "consistent")
    assert "tied" in near.inner_text() and page.locator("section:visible .ranking:visible").count() == 2
    assert page.locator(".ranking:visible summary >> text=paired tests").count() == 1


def test_charts_draw_the_rows_that_are_shown(watched: Watched) -> None:
    page = watched.open("index.html")
    shown = ".board:not([hidden]) .ranking:not([hidden]) .series:not([hidden]) title"
    names = f"[...document.querySelectorAll('{shown}')].map(item => item.textContent)"
    assert page.evaluate(names) == ["best", "near", "best", "near"]  # curves, costs
    page.select_option("[name=category]", "language model")
    assert page.evaluate(names) == ["best", "best"] and page.locator(".series:visible").count() == 2
    page.click("#all")
    assert {"best", "near", "tpe", "few"} <= set(page.evaluate(names))


def test_paper_has_everything_and_says_what_was_filtered(watched: Watched) -> None:
    page = watched.open("index.html")
    page.emulate_media(media="print")
    assert page.is_visible("text=2 of 5 rows shown") and page.is_visible("[name=tier]") and not page.is_visible("#all")
    page = watched.open("session/tiny-best-s0.html")
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    cut = "[...document.querySelectorAll('pre')].filter(item => item.scrollHeight > item.clientHeight + 1).length"
    assert page.evaluate(cut) == 0
    page.emulate_media(media="screen")
    assert page.evaluate(cut) > 0


def test_without_scripts_every_row_is_there(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    assert page.locator("[data-choices=reproduced] tbody tr:visible").count() == 2
    assert page.locator("[data-choices~=all] tbody tr:visible").count() == 5 and not page.is_visible("#filters")
    context.close()


def test_hostile_words_stay_words(watched: Watched) -> None:
    for path in pages(watched.site):
        page = watched.open(path)
        page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
        assert page.evaluate("window.owned") is None
        assert page.evaluate("document.querySelectorAll('img, iframe, base, body style').length") == 0
        assert page.evaluate("getComputedStyle(document.body).display") != "none"
    page = watched.open("session/hostile.html")
    assert "<script>window.owned = 1</script>" in page.inner_text("main")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_scrolls_sideways_on_a_phone(watched: Watched, scheme: str) -> None:
    watched.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    watched.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for path in pages(watched.site):
        page = watched.open(path)
        for opened in (False, True):
            page.evaluate("opened => document.querySelectorAll('details').forEach(item => item.open = opened)", opened)
            if path == "index.html" and opened and page.is_visible("#all"):
                page.click("#all")
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], (path, opened)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}[scheme]


def test_screen_readers_get_names_and_tables(watched: Watched) -> None:
    page = watched.open("index.html#tier=all")
    assert page.get_by_role("combobox", name="tier").count() == 1
    assert page.get_by_role("status").inner_text() == "5 of 5 rows shown"
    assert page.get_by_role("table", name="Researchers on tiny").count() == 1
    assert page.get_by_role("img", name="best: mean gain +0.0500 bpb").count() == 1
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    # Cards on a phone are still a table to those who cannot see them.
    assert page.get_by_role("row", name="best").count() >= 1 and page.get_by_role("rowheader", name="best").count() == 1
    for path in pages(watched.site):
        watched.open(path)
        nameless = (
            "[...document.querySelectorAll('a, button, summary, select, svg[role=img]')].filter(item => !("
            "item.textContent.trim() || item.getAttribute('aria-label') || item.getAttribute('aria-labelledby')))"
        )
        assert page.evaluate(f"{nameless}.map(item => item.outerHTML)") == [], path


def test_an_address_leads_to_its_board_or_says_that_there_is_none(watched: Watched) -> None:
    page = watched.open("index.html")
    board = page.locator("section.board").last.get_attribute("id")
    page.evaluate("board => { location.hash = board }", board)
    place = "document.getElementById(board).getBoundingClientRect().top"
    page.wait_for_function(f"board => {place} > -10 && {place} < 800", arg=board)
    page.evaluate("location.hash = 'b00000000'")
    page.wait_for_function("document.getElementById('shown').textContent.startsWith('There is no such board here.')")
    assert page.inner_text("#shown").endswith("2 of 5 rows shown")
    page.select_option("[name=tier]", "all")
    assert page.inner_text("#shown") == "5 of 5 rows shown"
    watched.open("index.html#add")
    assert page.inner_text("#shown") == "2 of 5 rows shown"


def test_a_phone_names_its_numbers_and_sorts(watched: Watched) -> None:
    page = watched.open("index.html#tier=all")
    assert not page.is_visible("[name=sort]") and not page.is_visible("td .label")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    cells = page.locator(".ranking:visible tr[data-name=best] td.gain")
    assert cells.inner_text().startswith("gain, bpb") and "val bpb" in page.inner_text(".panels tbody .gain")
    # What cannot be seen cannot be reached with the keyboard, and yet the columns have names.
    hidden = "[...document.querySelectorAll('.rows thead button')].map(item => getComputedStyle(item).visibility)"
    assert set(page.evaluate(hidden)) == {"hidden"}
    assert page.locator(".ranking:visible thead").first.get_by_role("columnheader", name="researcher").count() == 1
    page.select_option("[name=sort]", "name")
    assert watched.rows()[:4] == ["best", "few", "near", "tpe"]
    page.select_option("[name=sort]", "")
    assert watched.rows()[:4] == ["best", "near", "tpe", "few"]
