"""The command line. Nothing heavy is imported before it is known what to do: `bpbench --help` starts at once."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import cli_device
from harness.errors import ConfigError, HarnessError, TaskMisfit, of_system
from harness.llm import cli as cli_llm
from harness.views import text

if TYPE_CHECKING:
    from harness.config import Config
    from harness.records import SessionState

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130  # 128 + SIGINT, as a shell reports it
EXIT_UNREAD = 141  # 128 + SIGPIPE
DEFAULT_ROOT = Path("sessions")

_OVERRIDES_HELP = "Hydra overrides such as agent=random task=nano session.experiments=12"
_EPILOG = """\
Overrides choose an option of a group (agent=random) or set a value (session.experiments=12);
`bpbench config` prints what they add up to, the YAML files under conf/ are all there is to choose from.

  bpbench run                                        a first session: seven to sixteen minutes on two cores
  bpbench run task=tiny backend=null data=synthetic  a dry run in seconds, never ranked
  bpbench run -m agent=tpe,random session.seed=0,1   four sessions, one after the other
"""


def main(argv: Sequence[str] | None = None, more: Callable[[Commands], None] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (it failed), 2 (wrong input), 130 (interrupted) or 141 (unread).

    `more` adds the commands of packages that build on this one: bpbench itself starts in leaderboard/cli.py.
    """
    try:
        status = _carry_out(_parse(argv, more))
        if sys.stdout:  # None where it was closed
            sys.stdout.flush()  # here rather than at exit, where Python would print a traceback of its own
        return status
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return EXIT_UNREAD


def _carry_out(arguments: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's polite kill leaves as tidily as Ctrl-C
    try:
        status: int = arguments.command(arguments)
        return status
    except HarnessError as error:
        return _report(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _report(of_system(error))
    except KeyboardInterrupt:
        text.say("interrupted")
        return EXIT_INTERRUPTED


def _reader_has_gone() -> bool:
    """Whether nobody reads what is printed, as after `bpbench config | head -1`; then nothing more is printed."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def find_session(name: str, root: Path = DEFAULT_ROOT) -> Path:
    """The folder of the session that the user calls `name`: a path, or a name under `root`. Raises ConfigError."""
    for folder in (Path(name), root / name):
        if (folder / "journal.jsonl").is_file():
            return folder
    known = sorted((path.parent for path in root.glob("*/journal.jsonl")), key=lambda path: path.stat().st_mtime)
    latest = ", ".join(path.name for path in known[-3:]) or "none"
    raise ConfigError(
        f"no session '{name}' (a folder with a journal.jsonl, or its name); the latest in {root}: {latest}"
    )


def _parse(argv: Sequence[str] | None, more: Callable[[Commands], None] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bpbench",
        description="Measures how good an LLM is as a machine-learning researcher.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run a session")
    run.add_argument("--yes", action="store_true", help="agree beforehand to what a language model may cost")
    run.add_argument("-m", "--multirun", action="store_true", help="one session for each combination of listed values")
    run.set_defaults(command=_run)
    prepare = commands.add_parser("prepare", help="fetch and prepare the data of a session, and nothing else")
    prepare.set_defaults(command=_prepare)
    config = commands.add_parser("config", help="print the configuration that overrides add up to")
    config.set_defaults(command=_config)
    doctor = commands.add_parser("doctor", help="say what this machine can do, and what keeps sessions from ranking")
    doctor.add_argument("--ping", action="store_true", help="also ask the language model one small question")
    doctor.set_defaults(command=_doctor)
    for command in (run, prepare, config, doctor):
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=_OVERRIDES_HELP)

    show = commands.add_parser("show", help="print a session's table and result")
    show.set_defaults(command=_show)
    resume = commands.add_parser("resume", help="continue a session that was stopped")
    resume.set_defaults(command=_resume)
    track = commands.add_parser("track", help="mirror a session's journal into a tracker, replacing an earlier mirror")
    track.add_argument("--tracker", default="wandb", help="a name under harness/tracking/ (default: wandb)")
    track.add_argument("--bundle", type=Path, metavar="FILE", help="the session's bundle, to be sent with it")
    track.set_defaults(command=_track)
    for command in (show, resume, track):
        command.add_argument(
            "session", metavar="SESSION", help=f"the session's folder, or its name under {DEFAULT_ROOT}/"
        )

    export = commands.add_parser("export", help="write a session's best train.py and its history as a git repository")
    export.set_defaults(command=_export)
    export.add_argument("session", metavar="SESSION", help="the session's folder, or its name")
    export.add_argument("target", metavar="DIR", type=Path, help="a folder that does not exist yet, or is empty")

    cli_device.add(commands, _OVERRIDES_HELP)
    cli_llm.add_serve(commands)
    cli_llm.add_mcp(commands)
    if more is not None:
        more(commands)
    arguments, rest = parser.parse_known_args(argv)
    # argparse takes the overrides behind an option for unknown arguments.
    flags = [word for word in rest if word.startswith("-") or not hasattr(arguments, "overrides")]
    if flags:
        parser.error(f"unknown arguments: {' '.join(flags)}")
    if rest:
        arguments.overrides += rest
    return arguments


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"bpbench {version('bpbench')}")
        parser.exit()


def _run(arguments: argparse.Namespace) -> int:
    if arguments.multirun:
        from harness.multirun import run_multirun

        job = partial(_run_or_go_on, yes=arguments.yes)
        return run_multirun(arguments.overrides, job, say=text.say, report=_report)
    from harness.compose import compose

    return _run_new(compose(arguments.overrides), arguments.yes)


def _run_or_go_on(config: Config, yes: bool) -> int:
    """A session of a multirun. One that an earlier try left behind is gone on with."""
    from harness.multirun import begun

    known = begun(config)
    if known is None:
        return _run_new(config, yes)
    folder, state = known
    if state.closed and (folder / "report.html").is_file():  # which is written last
        text.say(f"{folder} is finished already{_not_ranked(state)}")
        return 0
    return _go_on(folder)


def _not_ranked(state: SessionState) -> str:
    from harness.views.summary import unranked

    if not (reasons := unranked(state)):
        return ""
    # What the session knew when it began stays so; what the device did in the meantime need not come again.
    way_on = "" if state.unranked else ": move it away to run its seed again"
    return f", and cannot be ranked ({reasons[0]}){way_on}"


def _run_new(config: Config, yes: bool) -> int:
    from harness.assemble import run_session
    from harness.session_folder import free_folder, session_name

    # Named here, so that it is known where to resume whatever happens.
    config.session.name = session_name(config)
    folder = free_folder(config)  # before a model is asked, which may cost something
    cli_llm.agree(config, yes=yes)
    with _saying_how_to_resume(folder):
        run_session(config)
    _print_session(folder)
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    return _go_on(find_session(arguments.session))


def _go_on(folder: Path) -> int:
    from harness.assemble import run_session

    with _saying_how_to_resume(folder):
        run_session(None, resume=folder)
    _print_session(folder)
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    from contextlib import closing

    from harness import views
    from harness.assemble import stage_progress
    from harness.compose import compose
    from harness.data import prepare

    config = compose(arguments.overrides)
    with closing(views.make()) as view:
        info = prepare(config, lambda event: view.on_progress(stage_progress(event)))
    print(f"{config.data.name} for task={config.task.name} is ready: {info.path}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    _print_session(find_session(arguments.session))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from harness.export import export

    done = export(find_session(arguments.session), arguments.target)
    where = "the stock script: nothing was kept" if done.best is None else f"experiment {done.best.index + 1}"
    print(f"{done.folder / 'train.py'}: {where}; `git -C {done.folder} log -p` shows the way there.\n{done.sentence}")
    return 0


def _track(arguments: argparse.Namespace) -> int:
    from harness import tracking

    print(tracking.mirror(arguments.tracker, find_session(arguments.session), arguments.bundle))
    return 0


def _config(arguments: argparse.Namespace) -> int:
    from harness.compose import compose, to_yaml

    print(to_yaml(compose(arguments.overrides)), end="")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from harness.compose import compose
    from harness.doctor import diagnose, lines

    config = compose(arguments.overrides)
    diagnosis = diagnose(config)
    print(*lines(diagnosis), sep="\n")
    ready = config.llm.name == "none" or cli_llm.print_findings(config, ping=arguments.ping)
    return 0 if diagnosis.usable and ready else EXIT_ERROR


def _print_session(folder: Path) -> None:
    from harness.views.show import show

    show(folder)


@contextmanager
def _saying_how_to_resume(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "journal.jsonl").is_file():
            text.say(f"stopped; nothing is lost, continue with: {_same_cores()}bpbench resume {folder}")
        else:
            text.say("stopped before the session began; run the same command again")
        raise SystemExit(EXIT_INTERRUPTED) from None


def _same_cores() -> str:
    """A session goes on with the cores that it had: what gives them again, where they are not all of the machine."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return f"taskset -c {','.join(map(str, cores))} " if 0 < len(cores) < (os.cpu_count() or 1) else ""


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _report(error: HarnessError) -> int:
    if isinstance(error, TaskMisfit):
        cli_device.print_misfit(error)
    text.say(str(error))
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
