"""The commands of the published leaderboard: `submit`, `attest`, `check`, `leaderboard`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from leaderboard.paths import ENTRIES, OFFICIAL, REPRODUCERS

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from harness.cli import Commands
    from leaderboard.scan import Scan
    from leaderboard.submit import Prepared

_FOLDER = "a folder of entries (default: leaderboard/entries of this clone)"


def add(commands: Commands) -> None:
    submit = commands.add_parser("submit", help="make leaderboard entries of bundles")
    submit.set_defaults(command=_submit)
    submit.add_argument("bundles", nargs="+", metavar="BUNDLE", type=Path, help="a file that `bpbench bundle` made")
    submit.add_argument("--by", default="", metavar="NAME", help="who submits (default: git's user.name)")
    submit.add_argument("--link", metavar="URL", help="https, of who submits")
    submit.add_argument(
        "--account", metavar="ACCOUNT", help="that opens the pull request (default: whose page on GitHub --link is)"
    )
    submit.add_argument("--url", metavar="URL", help="where the bundle can be fetched; a folder of several ends in /")
    submit.add_argument("--note", default="", metavar="TEXT", help="one line, shown with the session")
    submit.add_argument("--entries", type=Path, default=ENTRIES, metavar="DIR", help=_FOLDER)

    attest = commands.add_parser("attest", help="put a reproduction to the entry that it is of")
    attest.set_defaults(command=_attest)
    attest.add_argument("reproduction", type=Path, metavar="FOLDER", help="a folder that `bpbench reproduce` made")
    attest.add_argument("--by", required=True, metavar="WHO", help="a name on the list of reproducers")
    attest.add_argument("--entries", type=Path, default=ENTRIES, metavar="DIR", help=_FOLDER)

    for command in (submit, attest, *_add_readers(commands)):
        add_lists(command)


def add_lists(command: ArgumentParser) -> None:
    """What counts is decided by two lists, ours unless others are named."""
    boards = "the official boards (default: ours)"
    command.add_argument("--official", type=Path, default=OFFICIAL, metavar="FILE", help=boards)
    who = "who may reproduce (default: ours)"
    command.add_argument("--reproducers", type=Path, default=REPRODUCERS, metavar="FILE", help=who)


def _add_readers(commands: Commands) -> tuple[ArgumentParser, ArgumentParser]:
    """`check` and `leaderboard`."""
    check = commands.add_parser("check", help="check a folder of leaderboard entries")
    check.set_defaults(command=_check)
    check.add_argument("--base", type=Path, metavar="DIR", help="what is published now: nothing of it may vanish")
    check.add_argument("--download", action="store_true", help="fetch bundles that lie elsewhere, and check them too")
    check.add_argument(
        "--author",
        metavar="ACCOUNT",
        help="who proposes the changes: new entries and reproductions must be theirs; needs --base",
    )

    board = commands.add_parser("leaderboard", help="print the published leaderboard")
    board.set_defaults(command=_leaderboard)
    board.add_argument("--task", metavar="T", help="only boards of this task")
    board.add_argument("--all", action="store_true", dest="all_tiers", help="also rows that nobody has reproduced")
    board.add_argument("--json", type=Path, metavar="FILE", help="write everything there as JSON")
    board.add_argument("--page", type=Path, metavar="FILE", help="write the tables between the markers of this page")
    for command in (check, board):
        command.add_argument("folder", nargs="?", type=Path, default=ENTRIES, metavar="DIR", help=_FOLDER)
    return check, board


def _scan(arguments: Namespace) -> Scan:
    from leaderboard import official, scan
    from leaderboard.retrained import listed

    boards = official.read(arguments.official)
    return scan.scan(arguments.entries, scan.default_cache(), listed(arguments.reproducers), boards)


def _submit(arguments: Namespace) -> int:
    from leaderboard import official, submit

    found = _scan(arguments)
    wish = submit.Wish(arguments.by, arguments.link, arguments.url, arguments.note, arguments.account)
    today = datetime.now(UTC).date()
    boards = official.read(arguments.official)
    prepared = submit.prepare(arguments.bundles, submit.with_default_name(wish), found, today, boards)
    written = submit.write(prepared, arguments.entries)
    for path in written:
        print(path)
    for item in prepared:
        if item.entry.url is not None:
            print(f"{item.name}: put the bundle at {item.entry.url} before you open the pull request")
    if submit.account_of(wish) is None:
        where = "that .json file" if len(prepared) == 1 else "those .json files"
        print(f"Still to do: the pull request's check asks for your account: put it into `account` in {where}")
    for line in submit.warnings(prepared, found):
        print(f"Still to do: {line}")
    _say_how_on(prepared, written)
    return 0


def _say_how_on(prepared: list[Prepared], written: list[Path]) -> None:
    words = prepared[0].name if len(prepared) == 1 else f"{len(prepared)} sessions"
    print("\nAs a pull request, in a clone of your fork:\n")
    print(f"  git switch -c entries-{prepared[0].name}")
    print(f"  git add {' '.join(map(str, written))}")
    print(f"  git commit -m 'Publish {words}'")
    print("  bpbench check      # what a clone can tell; the pull request's workflow also compares accounts")
    print("  git push -u origin HEAD\n")
    print("docs/leaderboard.md says what is checked and what becomes of it.")


def _attest(arguments: Namespace) -> int:
    from harness.views import text
    from leaderboard.attest import attest
    from leaderboard.retrained import listed

    put = attest(arguments.reproduction, arguments.by, _scan(arguments), listed(arguments.reproducers))
    made = put.attested.retrained
    print(f"{put.path}: {put.session.name} {made.verdict.word} on {text.line(made.device_label)}")
    return 0


def _check(arguments: Namespace) -> int:
    import sys

    from harness.cli import EXIT_ERROR
    from harness.views import text
    from leaderboard import download, official, scan
    from leaderboard.check import check
    from leaderboard.retrained import listed

    checked = check(
        arguments.folder,
        cache=scan.default_cache(),
        reproducers=listed(arguments.reproducers),
        boards=official.read(arguments.official),
        base=arguments.base,
        fetch=download.fetch if arguments.download else None,
        author=arguments.author,
        today=datetime.now(UTC).date(),
    )
    # Behind a dash: at the start of a line, names of files could be commands to who runs the workflow.
    for problem in checked.problems:
        print(f"- {problem}", file=sys.stderr)
    for note in checked.notes:
        print(f"- note: {note}")
    for name in checked.absent if not arguments.download else ():
        print(text.for_log(f"- {name}: its bundle is elsewhere and was not checked; `--download` fetches it"))
    found = checked.scan
    entries = text.count(len(found.entries), "entry", "entries")
    counts = f"{entries}, {text.count(len(found.reproductions), 'reproduction')}"
    print(f"{counts}: {text.count(len(checked.problems), 'problem')}" if checked.problems else f"{counts}: all is well")
    return EXIT_ERROR if checked.problems else 0


def _leaderboard(arguments: Namespace) -> int:
    from harness.files import write_atomically
    from harness.views.stdout import Stdout
    from leaderboard import official, page, published_page, show_standings
    from leaderboard.published import load
    from leaderboard.retrained import listed

    who, boards = listed(arguments.reproducers), official.read(arguments.official)
    collection = load(arguments.folder, reproducers=who, boards=boards)
    tasks = sorted({str(board.key.get("task")) for board in collection.boards})
    if arguments.task is not None and arguments.task not in tasks:
        raise ConfigError(f"--task {arguments.task!a}: nothing is published of it; there is: {', '.join(tasks) or '-'}")
    show_standings.show(collection, Stdout(), all_tiers=arguments.all_tiers, task=arguments.task)
    if arguments.json:
        content = json.dumps(show_standings.as_json(collection), indent=1, allow_nan=False) + "\n"
        write_atomically(arguments.json, content)
    if arguments.page:
        print(f"Page: {page.fill(arguments.page, published_page.sections(collection))}")
    return 0
