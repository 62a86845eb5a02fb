from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic_journal
from PIL import Image

from harness.fold import fold
from harness.journal import Record
from harness.views import experiments, plot, report, write_all

_VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """The page's tags, attributes and text as a browser would see them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def session(folder: Path, **options: object) -> list[Record]:
    return synthetic_journal.write(folder / "journal.jsonl", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report.render(session(tmp_path_factory.mktemp("hostile"), hostile=True))


def test_hostile_text_stays_text(hostile: str) -> None:
    page = Page(hostile)
    assert page.open == [] and not {"script", "iframe", "object", "link", "img", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    words = "".join(page.words)
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in words
    assert "{{ 7 * 7 }} {% raw %}" in words and "</style>" in words
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", hostile)
    hostile.encode("utf-8")


def test_the_page_is_capped(hostile: str) -> None:
    assert len(hostile) < 400_000


def test_the_page_asks_for_nothing(hostile: str) -> None:
    page = Page(hostile)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy and "script" not in policy and "http" not in policy
    for name, value in page.attributes:
        if name in ("href", "xlink:href", "src", "action", "data"):
            assert value.startswith("#"), (name, value)
    assert "@import" not in hostile and not re.search(r"url\((?!#)", hostile)


def test_links_and_ids_meet(hostile: str) -> None:
    page = Page(hostile)
    ids = [value for name, value in page.attributes if name == "id"]
    wanted = {value[1:] for name, value in page.attributes if name in ("href", "xlink:href")}
    assert len(ids) == len(set(ids)) and wanted <= set(ids)


def test_a_diff_is_against_the_incumbent_of_its_time(tmp_path: Path) -> None:
    records = session(tmp_path)
    entries = experiments.entries(fold(records), {})
    # Every synthetic edit turns a "WIDTH = 128" of its incumbent into another width; 1 (128) and 4 (152) were kept.
    changed = [[line for kind, line in entry.diff if kind != "same" and "WIDTH =" in line] for entry in entries]
    assert changed == [
        [],
        ["-WIDTH = 128", "+WIDTH = 136"],
        ["-WIDTH = 128", "+WIDTH = 144"],
        ["-WIDTH = 128", "+WIDTH = 152"],
        [],
        [],
    ]
    assert "+# A short convolution before attention" in [line for _, line in entries[5].diff]
    assert entries[4].diff == () and "refused" in entries[4].diff_note


def test_a_refused_edit_shows_what_was_asked(tmp_path: Path) -> None:
    records = session(tmp_path)
    refused = experiments.entries(fold(records), experiments.edits(records))[4]
    assert ("del", "-a < b") in refused.diff and ("add", "+import flash_attn") in refused.diff
    assert "-a &lt; b" in report.render(records)


def test_a_change_that_cannot_be_seen_is_named() -> None:
    assert experiments.diff("x = 1\n", "x = 1\u202e\n") == ([], "No visible change against the incumbent.")
    assert "Too long to compare" in experiments.diff("a\n" * 9000, "b\n" * 9000)[1]


def test_a_curve_ignores_what_is_not_a_loss() -> None:
    points = [synthetic_journal.CurvePoint(float(i), i, loss) for i, loss in enumerate((3.0, float("nan"), 1e300, 2.0))]
    curve = experiments.curve(points, (), 10.0)
    assert curve is not None and curve.points == "0.0,0.0 180.0,150.0"
    assert experiments.curve(points[:2], (), 10.0) is None
    assert not re.search("nan|inf", curve.points)


@pytest.mark.parametrize("stop_after", [1, 3, 9, 13])
def test_a_young_session_has_a_report_and_a_picture(tmp_path: Path, stop_after: int) -> None:
    page = report.render(session(tmp_path, stop_after=stop_after))
    assert "This session is unfinished" in page


def test_the_files_of_a_session(tmp_path: Path) -> None:
    session(tmp_path, keep=False)
    assert [path.name for path in write_all(tmp_path)] == ["summary.json", "progress.png", "report.html"]
    with Image.open(tmp_path / "progress.png") as picture:
        assert picture.size == (1800, 920)
    assert "No experiment was kept; baseline against itself" in (tmp_path / "report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "journal.jsonl",
        "progress.png",
        "report.html",
        "summary.json",
    ]


def test_names_with_mathematics_are_drawn_literally(tmp_path: Path) -> None:
    state = fold(session(tmp_path))
    named = replace(state, config={**state.config, "agent": {"name": "$\\frac{1}$ $x_"}})
    with Image.open(io.BytesIO(plot.png(named))) as picture:
        assert picture.format == "PNG"


def test_values_far_off_do_not_stretch_the_picture(tmp_path: Path) -> None:
    state = fold(session(tmp_path))
    wild = replace(state.experiments[1], val_bpb=9.9)
    axes = plot.draw(replace(state, experiments=(state.experiments[0], wild, *state.experiments[2:]))).axes[0]
    assert axes.get_ylim()[1] < 2.2
