"""A coding agent of its own (Claude Code, Codex, any program) that drives the session over MCP.

The program is started once and works through all experiments: it calls `propose` (harness/mcp_server.py), waits while
the session trains and scores, and gets the result as the call's answer. Its score comes from the session alone. After a
kill a new one is started and told what was tried: it keeps nothing but what the session knows.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import folders, mcp_server
from harness.agents import _answer, _lookup, _programs, _prompt
from harness.edits import apply_edit
from harness.errors import ConfigError, EditRefused, HarnessError
from harness.protocols import Desk, Launch, Process
from harness.records import Proposal, Refused, Stop, Usage, View
from harness.sandbox.process import ProcessSandbox
from harness.service import Asked, Service
from harness.smoke import SMOKE_SECONDS
from harness.views import text

MAX_LOG_BYTES = 64 << 20
LAST_WORDS_SECONDS = 60.0  # for the program to end by itself after the last experiment
_POLL_SECONDS = 0.1
_EXPERIMENT_SECONDS = 4 * 3600.0  # an experiment and its second run take less; agents would give up before
_HISTORY_TOKENS = 30_000  # of the answer to `history`
_SHELL_SIGNALS = range(129, 193)  # how a shell says that a signal ended what it ran
_CODE = {"propose": _answer.PROPOSE, "smoke": _answer.SMOKE}


@dataclass
class Running:
    """A program at work."""

    process: Process
    service: Service
    log_path: Path
    waiting: Asked | None = None  # its `propose`, until the experiment is over
    told_at: float = -math.inf  # when an experiment last ended
    untold: bool = False  # whether nobody waited for its result any more
    proposed: int = 0


@dataclass
class External:
    program: str
    argv: tuple[str, ...]
    arguments: tuple[str, ...]  # more of them, where argv says {arguments}
    environment: tuple[str, ...]
    parser: str
    repairs: int
    smokes: int
    max_turn_seconds: float  # from one result to the next proposal
    desk: Desk | None = None
    running: Running | None = None
    name: str = "external"
    needs_llm: bool = False

    def at(self, desk: Desk) -> External:
        self.desk = desk  # the program stays the same one, whoever's turn it is
        return self

    def check(self) -> None:
        """Raises ConfigError for what would be missing only once the device is calibrated."""
        _programs.found(self.argv[0])
        if importlib.util.find_spec("mcp") is None:
            raise ConfigError("agent=external needs the mcp package: pip install -e '.[external]'")
        if missing := _programs.missing_key(self.environment, os.environ):
            raise ConfigError(f"{self.program}: {missing}")

    def facts(self) -> dict[str, Any]:
        """What is known of the program beforehand, for the opening record."""
        return {
            "category": "external",
            "program": self.program,
            "argv": list(self.argv),
            "arguments": list(self.arguments),
            "environment": list(self.environment),
            "prompts_sha256": _prompt.sha256(_prompt.FOLDER / "external"),
            "repairs": self.repairs,
            "smokes": self.smokes,
            "max_turn_seconds": self.max_turn_seconds,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }

    def propose(self, view: View) -> Proposal | Refused | Stop:
        """Raises HarnessError when the program cannot be started or ends before it did anything."""
        if self.desk is None:
            raise HarnessError("agent=external proposes at a session's desk only")
        if self.running is None:
            self.running = self._start(self.desk)
        running = self.running
        if running.waiting is not None:
            running.told_at, running.untold = time.monotonic(), running.waiting.abandoned()
            running.waiting.answer(result(view))
            running.waiting = None
        turn = _Turn(self, view, self.desk)
        limit = self.max_turn_seconds if view.hours_left is None else min(self.max_turn_seconds, 3600 * view.hours_left)
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            asked = running.service.next(_POLL_SECONDS)
            if asked is not None and (ending := turn.serve(asked)) is not None:
                running.proposed += 1
                return ending
            status = running.process.poll()
            if status is not None and asked is None:
                return self._gone(status, self.desk)
        self.close()
        self._report(self.desk)
        if limit < self.max_turn_seconds:
            return Stop(f"session.max_hours={self.desk.max_hours:g} was reached while {self.program} was at work")
        return Stop(f"{self.program} did not propose within {limit:.0f} s")

    def finish(self, view: View, desk: Desk) -> None:
        """Tell the program the last result, and let it end."""
        if self.running is not None:
            self._let_end(self.running, view)
        self.close()
        self._report(desk)

    def _let_end(self, running: Running, view: View) -> None:
        if running.waiting is not None:
            running.waiting.answer(f"{result(view)}\n\nThat was the last experiment. Nothing more is asked of you.")
            running.waiting = None
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while running.process.poll() is None and time.monotonic() < deadline:
            asked = running.service.next(_POLL_SECONDS)
            if asked is not None:
                asked.refuse("all experiments are used: nothing more can be asked")

    def close(self) -> None:
        """End the program and all that it started."""
        running, self.running = self.running, None
        if running is not None:
            running.process.kill()
            running.service.close()
            shutil.rmtree(running.service.path.parent, ignore_errors=True)

    def _start(self, desk: Desk) -> Running:
        program = _programs.found(self.argv[0])
        place = _place(desk)
        work, home = place / "work", place / "home"
        for path in (work, home):
            folders.fresh(path)  # nothing that it learned elsewhere
        place.chmod(0o700)
        self._report(desk)  # of one that a kill ended together with us
        service = Service(_programs.socket_folder() / "service.sock")
        arguments = ["-I", "-m", "harness.cli", "mcp", str(service.path)]
        config = place / "mcp.json"
        server = {"command": sys.executable, "args": arguments, "timeout": int(1000 * _EXPERIMENT_SECONDS)}
        config.write_text(json.dumps({"mcpServers": {"bpbench": server}}))
        words = {
            "prompt": _prompt.template("external/start"),
            "mcp_config": str(config),
            "mcp_command": sys.executable,
            "mcp_args": json.dumps(arguments),
            "work": str(work),
        }
        # Numbered, so that their order is that of the starts whatever the clock did.
        number = len(list(place.glob("output-*.log")))
        log_path = place / f"output-{number:04d}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.log"
        launch = Launch(
            argv=(program, *(_programs.filled(part, words) for part in self._arguments())),
            cwd=work,
            env=_programs.environment(self.environment, home, os.environ),
            fds=(),
            log_path=log_path,
            max_log_bytes=MAX_LOG_BYTES,
            max_memory_bytes=None,
        )
        process = ProcessSandbox().launch(launch)
        return Running(process, service, log_path)

    def _arguments(self) -> Iterator[str]:
        for part in self.argv[1:]:
            yield from self.arguments if part == "{arguments}" else (part,)

    def _report(self, desk: Desk) -> None:
        """Hand on what each program that has ended said of its tokens and dollars; of one that said nothing, that too.

        One record a program, in their order: what has none yet is of programs that nobody saw ending.
        """
        for log_path in sorted(_place(desk).glob("output-*.log"))[desk.num_told :]:
            desk.spent(_programs.PARSERS[self.parser](_programs.output_of(log_path)) or Usage())

    def _gone(self, status: int, desk: Desk) -> Stop:
        """The program has ended with experiments left."""
        running = self.running
        assert running is not None
        last = text.tail(_programs.output_of(running.log_path), 2000).strip().split("\n")[-1]
        self.close()
        killed = status < 0 or status in _SHELL_SIGNALS  # by memory's end, or by hand: not its own decision
        if running.proposed == 0 or killed:
            when = "before it proposed anything" if running.proposed == 0 else f"after {running.proposed} proposals"
            raise HarnessError(
                f"{self.program} ended with status {status} {when}; its last line: {text.line(last)}; "
                f"see {running.log_path}; nothing is lost: `bpbench resume {desk.folder}`"
            )
        self._report(desk)
        return Stop(f"{self.program} ended by itself with status {status} after {running.proposed} proposals")


@dataclass
class _Turn:
    """What the program may do before one experiment."""

    agent: External
    view: View
    desk: Desk
    repairs: int = 0

    def serve(self, asked: Asked) -> Proposal | Refused | None:
        """Answer one request; the end of the turn when it proposes."""
        match asked.op:
            case "task":
                rules = _prompt.template(
                    "external/rules", repairs=str(self.agent.repairs), seconds=f"{SMOKE_SECONDS:.0f}"
                )
                asked.answer(_prompt.system(self.view, rules))
            case "read_train_py":
                asked.answer(self.view.incumbent_source)
            case "propose" if self._is_uninformed(asked):
                asked.refuse(
                    "not run, and it cost nothing: it was asked before the last experiment was over. "
                    f"{result(self.view)}\n\nCall history, then propose what follows from it."
                )
            case "history":
                self._is_uninformed(asked)
                asked.answer(_prompt.experiment(self.view, _HISTORY_TOKENS))
            case "smoke" | "propose":
                return self._edit(asked)
            case _:
                asked.refuse(f"there is no {text.line(asked.op, 60)}; there are {', '.join(mcp_server.TOOLS)}")
        return None

    def _is_uninformed(self, asked: Asked) -> bool:
        """Whether a result must be told first: one that reached nobody yet, or that came after this was asked.

        Several proposals at once, or a client's second try, would each cost an experiment, and undo what was kept.
        """
        running = self.agent.running
        assert running is not None
        untold, running.untold = running.untold, False
        return untold or asked.asked_at < running.told_at

    def _edit(self, asked: Asked) -> Proposal | Refused | None:
        try:
            move = _answer.from_call(_CODE[asked.op], {k: v for k, v in asked.arguments.items() if k != "op"})
            source = apply_edit(move.edit, self.view.incumbent_source, self.view.stock_source)
            if asked.op == "smoke":
                if self.desk.num_smoked >= self.agent.smokes:
                    raise EditRefused(
                        f"the {self.agent.smokes} smoke runs before this experiment are used: propose now"
                    )
                asked.answer(_lookup.smoke(self.desk.smoke(source)))
                return None
        except EditRefused as error:
            self.desk.refused(error)
            return self._repair(asked, str(error))
        assert self.agent.running is not None
        self.agent.running.waiting = asked
        return Proposal(move.hypothesis, move.edit, move.note)

    def _repair(self, asked: Asked, problem: str) -> Refused | None:
        self.repairs += 1
        if self.repairs <= self.agent.repairs:
            left = self.agent.repairs - self.repairs + 1
            asked.refuse(f"not accepted: {problem} (it cost no experiment; {left} more such before it does)")
            return None
        assert self.agent.running is not None
        self.agent.running.waiting = asked
        return Refused(f"{self.repairs} requests that could not be used; the last: {problem}", "no_proposal")


def result(view: View) -> str:
    """The last experiment's end, in words."""
    last = view.history[-1]
    left = "" if view.num_experiments is None else f" {view.num_experiments - len(view.history)} experiments are left."
    value = f"{text.bpb(last.val_bpb)} val bpb, {text.sigmas(last.delta_sigma)} sigma against the best before"
    verdict = "kept: it is the new best train.py" if last.kept else "not kept"
    what = value if last.val_bpb is not None else f"no score, {last.status}: {text.line(last.reason or '')}"
    log = text.tail(last.run.log_tail, 2000).strip("\n") if last.run else ""
    shown = f"\n\nIts log:\n{_prompt.quoted(log)}" if log else ""
    return f"Experiment {last.index + 1}: {what}; {verdict}.{left}{shown}"


def _place(desk: Desk) -> Path:
    return desk.folder.absolute() / "external"


def make(
    *,
    program: str = "external",
    argv: list | None = None,  # type: ignore[type-arg]
    arguments: list | None = None,  # type: ignore[type-arg]
    environment: list | None = None,  # type: ignore[type-arg]
    parser: str = "none",
    repairs: int = 3,
    smokes: int = 2,
    max_turn_seconds: float = 3600.0,
) -> External:
    if not argv:
        raise ConfigError("agent.options.argv must be the program and its arguments, such as [my-agent, '{prompt}']")
    if parser not in _programs.PARSERS:
        raise ConfigError(f"agent.options.parser must be one of {', '.join(_programs.PARSERS)}, not '{parser}'")
    for key, parts in (("argv", argv), ("arguments", arguments or []), ("environment", environment or [])):
        if wrong := [part for part in parts if not isinstance(part, str)]:
            raise ConfigError(
                f"agent.options.{key} must be a list of strings, and {wrong[0]!r} is none: write 'agent.options.{key}="
                f'["{wrong[0]}"]\', both kinds of quotes included'
            )
    if arguments and "{arguments}" not in argv[1:]:
        raise ConfigError("agent.options.arguments: argv does not say where they go; put '{arguments}' into it")
    _programs.check_environment(environment or [])
    _programs.check_arguments([*argv[1:], *(arguments or [])])
    for key, count in (("repairs", repairs), ("smokes", smokes)):
        if count < 0:
            raise ConfigError(f"agent.options.{key} must be 0 or more, not {count}")
    if not 0 < max_turn_seconds < math.inf:
        raise ConfigError(f"agent.options.max_turn_seconds must be above 0 and finite, not {max_turn_seconds}")
    lists = tuple(argv), tuple(arguments or ()), tuple(environment or ())
    return External(program, *lists, parser, repairs, smokes, max_turn_seconds)
