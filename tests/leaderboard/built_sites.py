"""Sites of a few rows, and the parts of their pages that tests look at."""

from __future__ import annotations

import re
from dataclasses import replace

import published_sessions as sessions
from site_pages import Page

from leaderboard.published import Category, Collection, Published, Tier
from leaderboard.site import pages
from leaderboard.site.build import files, links_of

CONTROL = Category.CONTROL


def built(*rows: list[Published]) -> dict[str, bytes]:
    return files(built_collection(*rows))


def front(*rows: list[Published]) -> dict[str, bytes]:
    """The first page of that site alone: those of its sessions take most of the time."""
    return front_of(built_collection(*rows))


def front_of(collection: Collection) -> dict[str, bytes]:
    made = dict([next(pages.render(collection, links_of(collection)))])
    return {"index.html": made["index.html"].encode()}


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
