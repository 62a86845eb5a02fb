"""Charts of the site: what is drawn is where the axis says, and what is not drawn is said."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath

import published_sessions as sessions
import pytest
from built_sites import CONTROL, built, front, front_of, index, rankings, three_rows, with_outcome
from site_pages import Page

from leaderboard.installed import task
from leaderboard.published import Category, Published, Tier
from leaderboard.site import charts, devices
from leaderboard.site.axis import Axis, around
from leaderboard.site.links import Links, slug

ENTRIES = PurePosixPath("entries")


def test_intervals_are_drawn_where_they_are(base: Published) -> None:
    """Further right is a larger gain, and 0 is where the axis says."""
    page = rankings(front_of(three_rows(base)))["consistent all"]
    strips = [svg["aria-label"] for svg in page.named("svg") if svg.get("class", "").startswith("strip gain")]
    assert strips[0].startswith("best: mean gain +0.0500 bpb, 95 % interval +0.04")
    means = [float(attributes["cx"]) for attributes in page.named("circle") if attributes.get("class") == "mean"]
    paths = page.named("path")
    zero = next(float(path["d"].split()[0][1:]) for path in paths if path.get("class") == "zero" and "v34" in path["d"])
    assert means[3] > means[0] > means[1] >= means[2] > zero
    assert means[0] - zero == pytest.approx((means[1] - zero) * 0.05 / 0.0301, abs=0.3)
    # The interval of two sessions would leave no room for the others: an arrow at the edge says that it goes on.
    assert [path["d"] for path in paths if path.get("class") == "cut"] == ["M306 7l6 5-6 5z"]


def test_costs_are_drawn_when_somebody_has_one(base: Published) -> None:
    control = sessions.rows(base, "tpe", 0.03, category=CONTROL)
    assert "no row with a known price" in index(front(control)).text
    assert base.bundle is not None
    model = sessions.rows(base, "model", 0.04, category=Category.LLM, bundle=sessions.priced(base.bundle, 0.84))
    told = index(front(control, model)).text
    assert "no row with a known price" not in told and "$0.84" in told and "model: 0.84 dollars" in told


def test_one_odd_row_leaves_the_others_their_room(base: Published) -> None:
    odd = sessions.rows(base, "odd", 1000.0, num=1, baseline_bpb=1e8)
    page = index(front(sessions.rows(base, "best", 0.05), odd))
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
    assert f"the sigma of the task's rules (±{known.sigma_prior_bpb:.4f} bpb) around" in panel.sentence


def test_many_rows_stay_within_their_chart(base: Published) -> None:
    page = index(front(*(sessions.rows(base, f"row{number:02d}", 0.01 * number) for number in range(15))))
    assert "up is better; 3 more in the table" in page.text
    assert sum(value.startswith("series ") for value in page.values("class")) == 12


def test_the_charts_of_a_ranking_are_of_its_sessions(base: Published) -> None:
    """There is room for twelve rows; the reproduced one is the worst of fourteen, and has a seed more."""
    made = [sessions.rows(base, f"row{number:02d}", 0.5 - 0.01 * number, tier=Tier.CONSISTENT) for number in range(13)]
    last = sessions.rows(base, "last", 0.01, tier=Tier.REPRODUCED)
    later = sessions.again(base, "last", 5, 1.0, tier=Tier.CONSISTENT)
    drawn = [item["data-row"] for item in index(front(*made, last)).named("g") if "data-row" in item]
    assert drawn == ["13", *map(str, range(12))]
    assert later.outcome is not None
    higher = tuple(replace(point, gain_bpb=point.gain_bpb + 1.0) for point in later.outcome.anytime)
    alone, both = (
        re.findall(r'<polyline points="([^"]*)"', front(last, *more)["index.html"].decode())
        for more in ([], [[with_outcome(later, anytime=higher)]])
    )
    assert both[0] == alone[0] and len(both) == 2


def test_rows_without_a_known_price_are_counted(base: Published) -> None:
    assert base.bundle is not None
    model = sessions.rows(base, "model", 0.04, category=Category.LLM, bundle=sessions.priced(base.bundle, 0.84))
    other = sessions.rows(base, "agent", 0.03, category=Category.EXTERNAL)
    assert "up is better; 1 without a known price" in index(front(model, other)).text


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


def test_the_curve_says_what_it_is_made_of(base: Published) -> None:
    told = index(front_of(three_rows(base))).text
    assert "val scores of kept changes, selected and so biased upwards" in told


def test_the_first_price_among_controls_is_drawn(base: Published) -> None:
    assert base.bundle is not None
    control = sessions.rows(base, "tpe", 0.03, category=CONTROL)
    few = sessions.rows(base, "model", 0.03, 2, category=Category.LLM, bundle=sessions.priced(base.bundle, 12.5))
    told = index(front(control, few)).text
    assert "model: 12.50 dollars" in told and "beyond the axes" not in told


def test_a_curve_at_the_edge_is_said_to_be(base: Published) -> None:
    def curve(name: str, gain_bpb: float, num: int) -> list[Published]:
        made = sessions.rows(base, name, gain_bpb, num)
        return [
            with_outcome(item, anytime=tuple(replace(point, gain_bpb=gain_bpb) for point in item.outcome.anytime))
            for item in made
            if item.outcome is not None
        ]

    said = "1 row without a verdict beyond the axes, drawn at the edge"
    assert said in index(front(curve("tpe", 0.03, 5), curve("few", 0.5, 2))).text
    assert said not in index(front(curve("tpe", 0.03, 5), curve("few", 0.03, 2))).text
