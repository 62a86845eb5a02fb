"""The command that builds the published site: `bpbench site`."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from leaderboard.cli_entries import add_lists
from leaderboard.paths import ENTRIES

if TYPE_CHECKING:
    from argparse import Namespace

    from harness.cli import Commands

ROOT = Path(__file__).resolve().parent.parent


def add(commands: Commands) -> None:
    site = commands.add_parser("site", help="build the leaderboard as static pages: no server, no network")
    site.set_defaults(command=_site)
    site.add_argument("entries", type=Path, nargs="?", metavar="DIR", default=ENTRIES, help="entries (default: ours)")
    site.add_argument("-o", "--output", type=Path, metavar="SITE", default=Path("site"), help="default: site")
    add_lists(site)
    site.add_argument(
        "--base-url", metavar="URL", help="https address of the repository's files, for links to documents and bundles"
    )


def _site(arguments: Namespace) -> int:
    from harness.views import text
    from leaderboard import official, published
    from leaderboard.retrained import listed
    from leaderboard.site.build import build

    who, boards = listed(arguments.reproducers), official.read(arguments.official)
    collection = published.load(arguments.entries, reproducers=who, boards=boards)
    made = build(collection, arguments.output, arguments.base_url, bundles_path(arguments.entries))
    sessions = text.count(len(collection.sessions), "session")
    print(f"{arguments.output / 'index.html'}: {sessions}, {made.num_bytes:,} bytes")
    for warning in made.warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    return 0


def bundles_path(entries: Path) -> PurePosixPath:
    """The entries' folder as seen from the repository, or its bare name where it lies elsewhere."""
    folder = entries.resolve()
    return PurePosixPath(folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else folder.name)
