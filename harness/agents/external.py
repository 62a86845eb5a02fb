"""A coding agent of its own (Claude Code, Codex, any program) that drives the session over MCP.

The program is started once and works through all experiments: it calls `propose` (harness/mcp_server.py), waits while
the session trains and scores, and gets the result as the call's answer. Its score comes from the session alone. After a
kill a new one is started and told what was tried: it keeps nothing but what the session knows.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import mcp_server
from harness.agents import _answer, _lookup, _prompt
from harness.agents._programs import PARSERS
from harness.edits import apply_edit
from harness.errors import ConfigError, EditRefused, HarnessError
from harness.protocols import Desk, Launch, Process
from harness.records import Proposal, Refused, Stop, View
from harness.sandbox.process import ProcessSandbox
from harness.service import Asked, Service
from harness.views import text

MAX_LOG_BYTES = 64 << 20
LAST_WORDS_SECONDS = 60.0  # for the program to end by itself after the last experiment
_POLL_SECONDS = 0.1
_EXPERIMENT_SECONDS = 4 * 3600.0  # an experiment and its second run take less; agents would give up before
_HISTORY_TOKENS = 30_000  # of the answer to `history`
_TAIL_BYTES = 4 << 20
_CODE = {"propose": _answer.PROPOSE, "smoke": _answer.SMOKE}


@dataclass
class Running:
    """A program at work."""

    process: Process
    service: Service
    log_path: Path
    started_at: float
    waiting: Asked | None = None  # its `propose`, until the experiment is over
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
            self.running = self._start(self.desk.folder)
        running = self.running
        if running.waiting is not None:
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
                return self._gone(status)
        self._report()
        self.close()
        return Stop(f"{self.program} did not propose within {limit:.0f} s")

    def finish(self, view: View) -> None:
        """Tell the program the last result, and let it end."""
        running = self.running
        if running is None:
            return
        if running.waiting is not None:
            running.waiting.answer(f"{result(view)}\n\nThat was the last experiment. Nothing more is asked of you.")
            running.waiting = None
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while running.process.poll() is None and time.monotonic() < deadline:
            asked = running.service.next(_POLL_SECONDS)
            if asked is not None:
                asked.refuse("all experiments are used: nothing more can be asked")
        self._report()
        self.close()

    def close(self) -> None:
        """End the program and all that it started."""
        running, self.running = self.running, None
        if running is not None:
            running.process.kill()
            running.service.close()

    def _start(self, folder: Path) -> Running:
        program = _found(self.argv[0])
        place = folder.absolute() / "external"
        work, home = place / "work", place / "home"
        for path in (work, home):
            shutil.rmtree(path, ignore_errors=True)  # a fresh home: nothing that it learned elsewhere
            path.mkdir(parents=True)
        place.chmod(0o700)
        service = Service(place / f"{secrets.token_hex(4)}.sock")
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
        log_path = place / f"output-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}.log"
        launch = Launch(
            argv=(program, *(_filled(part, words) for part in self._arguments())),
            cwd=work,
            env=environment(self.environment, home, os.environ),
            fds=(),
            log_path=log_path,
            max_log_bytes=MAX_LOG_BYTES,
            max_memory_bytes=None,
        )
        process = ProcessSandbox().launch(launch)
        return Running(process, service, log_path, time.monotonic())

    def _arguments(self) -> Iterator[str]:
        for part in self.argv[1:]:
            yield from self.arguments if part == "{arguments}" else (part,)

    def _report(self) -> None:
        """Hand on what the program's output says of its tokens and dollars."""
        used = PARSERS[self.parser](self._output())
        if self.desk is not None and used is not None:
            self.desk.spent(used)

    def _gone(self, status: int) -> Stop:
        """The program has ended with experiments left."""
        running = self.running
        assert running is not None
        last = text.tail(self._output(), 2000).strip().split("\n")[-1]
        if running.proposed == 0:
            self.close()
            raise HarnessError(
                f"{self.program} ended with status {status} before it proposed anything; its last line: "
                f"{text.line(last)}; see {running.log_path}"
            )
        self._report()
        self.close()
        return Stop(f"{self.program} ended by itself with status {status} after {running.proposed} proposals")

    def _output(self) -> str:
        assert self.running is not None
        with contextlib.suppress(OSError), self.running.log_path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
        return ""


@dataclass
class _Turn:
    """What the program may do before one experiment."""

    agent: External
    view: View
    desk: Desk
    repairs: int = 0
    smokes: int = 0

    def serve(self, asked: Asked) -> Proposal | Refused | None:
        """Answer one request; the end of the turn when it proposes."""
        match asked.op:
            case "task":
                rules = _prompt.template("external/rules", repairs=str(self.agent.repairs))
                asked.answer(_prompt.system(self.view, rules))
            case "read_train_py":
                asked.answer(self.view.incumbent_source)
            case "history":
                asked.answer(_prompt.experiment(self.view, _HISTORY_TOKENS))
            case "smoke" | "propose":
                return self._edit(asked)
            case _:
                asked.refuse(f"there is no {text.line(asked.op, 60)}; there are {', '.join(mcp_server.TOOLS)}")
        return None

    def _edit(self, asked: Asked) -> Proposal | Refused | None:
        try:
            move = _answer.from_call(_CODE[asked.op], {k: v for k, v in asked.arguments.items() if k != "op"})
            source = apply_edit(move.edit, self.view.incumbent_source, self.view.stock_source)
            if asked.op == "smoke":
                if self.smokes >= self.agent.smokes:
                    raise EditRefused(
                        f"the {self.agent.smokes} smoke runs before this experiment are used: propose now"
                    )
                self.smokes += 1
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


def environment(names: tuple[str, ...], home: Path, ours: Mapping[str, str]) -> dict[str, str]:
    """The program's whole environment: a fresh home, of ours only what is named, and what is set as NAME=VALUE."""
    plain = {"PATH": ours.get("PATH", "/usr/local/bin:/usr/bin:/bin"), "LANG": "C.UTF-8", "TERM": "dumb"}
    given = {name: ours[name] for name in names if name in ours}
    fixed = dict(name.split("=", 1) for name in names if "=" in name)
    return {**plain, "HOME": str(home), "TMPDIR": str(home), **given, **fixed}


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ConfigError(f"agent.options.argv: no program '{program}' on the PATH: install it, or give its path")
    return path


def _filled(part: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        part = part.replace("{" + name + "}", value)
    return part


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
    if parser not in PARSERS:
        raise ConfigError(f"agent.options.parser must be one of {', '.join(PARSERS)}, not '{parser}'")
    if not all(isinstance(part, str) for part in [*argv, *(arguments or []), *(environment or [])]):
        raise ConfigError("agent.options.argv, arguments and environment must be lists of strings")
    lists = tuple(argv), tuple(arguments or ()), tuple(environment or ())
    return External(program, *lists, parser, repairs, smokes, max_turn_seconds)
