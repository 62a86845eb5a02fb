"""Every page of the site as text: what is published, rendered on this side, so that it can be read without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import views
from harness.views import text
from leaderboard.published import Collection, Tier
from leaderboard.site import boards, devices, sessions, words
from leaderboard.site.links import Links
from leaderboard.site.rankings import ALL, CHOICES

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"

# By the strongest tier that some row counts at: what the page opens on, and what is to be said of it.
_PRESETS = {
    Tier.REPRODUCED: (Tier.REPRODUCED.value, ""),
    Tier.CONSISTENT: (Tier.CONSISTENT.value, "No row is reproduced yet: these are the consistent ones."),
    Tier.SELF_REPORTED: (ALL, "No row counts at a tier yet: each is contested, or has no session that counts."),
}
_NOTHING = "Nobody knows yet: no session of a ranked task has been published."
_UNSEEN = "Nobody knows yet: what is published has not been checked here, for its bundles are elsewhere."


@dataclass(frozen=True)
class _Unseen:
    """A session whose bundle is not here."""

    name: str
    href: str
    by: str


def render(collection: Collection, links: Links) -> Iterator[tuple[str, str]]:
    """(path within the site, content) of every page."""
    environment = _environment(links)
    yield "index.html", _page(environment, "index", "", "index.html", **_index(collection, links))
    yield "method.html", _page(environment, "method", "", "method.html")
    for session in collection.sessions:
        shown = sessions.view(session, links)
        yield links.session(session.name), _page(environment, "session", "../", "", view=shown)
    for device, path in sorted(links.devices.items()):
        here = [item for item in collection.sessions if item.outcome is not None and item.outcome.device == device]
        described = devices.view(device, here, collection.sessions, links)
        yield path, _page(environment, "device", "../", "", view=described)
    for name in ("style.css", "board.js"):
        yield name, (STATIC / name).read_text(encoding="utf-8")


def _environment(links: Links) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, Path(views.__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["doc"] = links.document
    return environment


def _page(environment: Environment, name: str, root: str, here: str, **context: Any) -> str:
    """`root` leads from the page to the site's root."""
    return environment.get_template(f"{name}.html.j2").render(root=root, here=here, **context)


def _index(collection: Collection, links: Links) -> dict[str, Any]:
    shown = boards.views(collection, links)
    rows = [row for board in shown for row in board.rows]
    ranking = [board for board in shown if not board.is_study]
    tier = max((board.tier for board in ranking or shown), key=words.STRENGTH.__getitem__, default=Tier.SELF_REPORTED)
    first = next((board for board in ranking if board.tier is tier), None)
    preset, note = _PRESETS[tier]
    unseen = [item for item in collection.sessions if item.outcome is None]
    return {
        "boards": shown,
        "first": first,
        "answer": first.answer if first else _UNSEEN if unseen else _NOTHING,
        "has_llm": any(row.category == "llm" for row in rows),
        "device_classes": sorted({name for row in rows for name in row.device_classes.split()}),
        "categories": sorted({row.category_label for row in rows if row.category}),
        "tiers": CHOICES.items(),
        "preset": preset,
        "preset_note": note,
        "panels": devices.panels(collection.sessions, links),
        "unseen": [
            _Unseen(text.line(item.name, 100), links.session(item.name), text.line(item.submitted_by, 80))
            for item in unseen
        ],
    }
