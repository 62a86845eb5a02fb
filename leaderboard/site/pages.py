"""Every page of the site as text: what is published, rendered on this side, so that it can be read without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import views
from harness.views import text
from leaderboard.published import Collection, Tier
from leaderboard.site import boards, devices, sessions, words
from leaderboard.site.boards import BoardView
from leaderboard.site.links import Links

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
_TIERS = (
    (Tier.REPRODUCED.value, "reproduced"),
    (Tier.CONSISTENT.value, "consistent or better"),
    ("all", "all tiers"),
)


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
    by = {item.outcome.head: item for item in collection.sessions if item.outcome is not None}
    shown = boards.views(collection.boards, by, links)
    rows = [row for board in shown for row in board.rows]
    preset, note = _preset(shown)
    known = {row.category: row.category_label for row in rows if row.category}
    return {
        "boards": shown,
        "answer": shown[0].answer if shown else "Nobody knows yet: no session has been published.",
        "has_llm": any(row.category == "llm" for row in rows),
        "device_classes": sorted({name for row in rows for name in row.device_classes.split()}),
        "categories": sorted(known.items(), key=lambda item: item[1]),
        "tiers": _TIERS,
        "preset": preset,
        "preset_note": note,
        "panels": devices.panels(collection.sessions, links),
        "unseen": [
            _Unseen(text.line(item.name, 100), links.session(item.name), text.line(item.submitted_by, 80))
            for item in collection.sessions
            if item.outcome is None
        ],
    }


def _preset(shown: Sequence[BoardView]) -> tuple[str, str]:
    """The strongest tier that some row has, and what is to be said where that is not *reproduced*."""
    best = max((row.tier for board in shown for row in board.rows), key=words.STRENGTH.__getitem__, default=None)
    if best is Tier.REPRODUCED:
        return Tier.REPRODUCED.value, ""
    if best is Tier.CONSISTENT:
        return Tier.CONSISTENT.value, "No row is reproduced yet: these are the consistent ones."
    return "all", "No row is reproduced or checked yet."
