"""Every page of the site as text: what is published, rendered on this side, so that it can be read without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import views
from harness.views import text
from leaderboard.published import Collection, Tier
from leaderboard.site import boards, devices, sessions
from leaderboard.site.boards import BoardView
from leaderboard.site.links import Links, slug
from leaderboard.site.rankings import ALL, CHOICES, BoardRow

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"

# By the strongest tier at which some row has a verdict, or counts: what the page opens on and what it says.
_PRESETS = {
    Tier.REPRODUCED: (Tier.REPRODUCED.value, ""),
    Tier.CONSISTENT: (
        Tier.CONSISTENT.value,
        "No reproduced row of {title} has a verdict yet: these are the consistent ones.",
    ),
    Tier.SELF_REPORTED: (ALL, "No row counts at a tier yet: each is contested, or has no session that counts."),
}
_NOTHING = "Nobody knows yet: no session of a ranked task has been published."
_WITHDRAWN = "Nobody knows: what was published has been withdrawn."
_UNSEEN = "Nobody knows yet: what is published has not been checked here, for its bundles are elsewhere."


@dataclass(frozen=True)
class _Withdrawn:
    """A session that was taken back: old links to it lead to the reason."""

    name: str
    href: str
    reason: str


@dataclass(frozen=True)
class _Unseen:
    """A session whose bundle is not here."""

    name: str
    href: str
    by: str


def render(collection: Collection, links: Links) -> Iterator[tuple[str, str]]:
    """(path within the site, content) of every page."""
    environment = _environment(links)
    shown, withdrawn = boards.views(collection, links), _withdrawn(collection, links)
    yield "index.html", _page(environment, "index", "", "index.html", **_index(shown, withdrawn, collection, links))
    yield "method.html", _page(environment, "method", "", "method.html")
    board_of = {dot.href: board.id for board in shown for row in board.rows for dot in (*row.sessions, *row.left_out)}
    for session in collection.sessions:
        path, view = links.session(session.name), sessions.view(session, links)
        yield path, _page(environment, "session", "../", "", view=view, board=board_of.get(path, ""))
    for gone in withdrawn:
        yield gone.href, _page(environment, "withdrawn", "../", "", gone=gone)
    for device, path in sorted(links.devices.items()):
        here = [item for item in collection.sessions if item.outcome is not None and item.outcome.device == device]
        described = devices.view(device, here, collection.sessions, links)
        yield path, _page(environment, "device", "../", "", view=described)
    for name in ("style.css", "board.js"):
        yield name, (STATIC / name).read_text(encoding="utf-8")


def _withdrawn(collection: Collection, links: Links) -> list[_Withdrawn]:
    """Without those that are published all the same, which `bpbench check` refuses."""
    gone = sorted(set(collection.withdrawn) - {session.name for session in collection.sessions})
    reasons = (text.line(collection.withdrawn[name]) for name in gone)
    return [_Withdrawn(text.line(name, 100), links.session(name), why) for name, why in zip(gone, reasons, strict=True)]


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


def _says(board: BoardView) -> tuple[bool, bool, int]:
    """How much a board has to say: a first look comes behind every verdict on a task that tells models apart."""
    return board.has_verdict, not board.is_first_look, board.tier.strength


def _waiting(shown: Sequence[BoardView]) -> list[str]:
    """How many rows of each board are not among the reproduced ones, but for those that were found wanting."""
    found = []
    for board in shown:
        reproduced = [ranking for ranking in board.rankings if Tier.REPRODUCED.value in ranking.choices.split()]
        seen = {row.number for ranking in reproduced for row in ranking.rows}
        count = sum(row.number not in seen and not row.contested for row in board.rows)
        found += [f"{text.count(count, 'row')} of {board.title}"] if count else []
    return found


def _index(
    shown: Sequence[BoardView], withdrawn: Sequence[_Withdrawn], collection: Collection, links: Links
) -> dict[str, Any]:
    rows = [row for board in shown for row in board.rows]
    ranked = [board for board in shown if not board.is_study]
    best = max(ranked or shown, key=_says, default=None)
    first = best if ranked else None
    preset, note = _PRESETS[best.tier if best else Tier.SELF_REPORTED]
    unseen = [item for item in collection.sessions if item.outcome is None]
    return {
        "boards": shown,
        "first": first,
        "answer": first.answer if first else _UNSEEN if unseen else _WITHDRAWN if withdrawn and not shown else _NOTHING,
        "withdrawn": withdrawn,
        "has_llm": any(row.category == "llm" for row in rows),
        "device_choices": _device_choices(
            [row for board in shown for ranking in board.rankings for row in ranking.rows], collection, links
        ),
        "categories": sorted({row.category_label for row in rows if row.category}),
        "tiers": CHOICES.items(),
        "preset": preset,
        "preset_note": note.format(title=best.title if best else ""),
        "waiting": _waiting(ranked) if preset == Tier.REPRODUCED.value else [],
        "panels": devices.panels(collection.sessions, links),
        "unseen": [
            _Unseen(text.line(item.name, 100), links.session(item.name), text.line(item.submitted_by, 80))
            for item in unseen
        ],
    }


def _device_choices(rows: Sequence[BoardRow], collection: Collection, links: Links) -> list[tuple[str, str]]:
    """What the device filter offers, value and name: classes, and single devices where there are more of these."""
    classes = sorted({name for row in rows for name in row.device_classes.split()})
    used = {key for row in rows for key in row.device_keys.split()}
    found = {item.outcome.device: item.outcome.device_label for item in collection.sessions if item.outcome}
    single = [(slug(device), links.device_name(device, label)) for device, label in found.items()]
    single = sorted((item for item in single if item[0] in used), key=lambda item: item[1])
    return [*((name, name) for name in classes), *(single if len(single) > len(classes) else [])]
