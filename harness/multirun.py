"""Several sessions, one after the other: Hydra's multirun. The same command goes on where it was stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from harness import agents, compose
from harness.config import TASK_WORDS, Config
from harness.errors import ConfigError, HarnessError, of_system
from harness.fold import fold
from harness.journal import canonical, read
from harness.opening import PROTOCOL_VERSION, instructions, plain
from harness.protocols import Repeats
from harness.records import SessionState
from harness.session_folder import is_unopened
from harness.sizes import stock_of


def run_multirun(
    overrides: Sequence[str],
    job: Callable[[Config], int],
    say: Callable[[str], None],
    report: Callable[[HarnessError], int],
) -> int:
    """Call `job` with each configuration of Hydra's own multirun of `overrides`; returns the worst status.

    A session that fails is reported and does not keep the others from running. Raises ConfigError when the overrides
    do not compose, before the first job.

    Args:
        say: prints a line about the sessions.
        report: prints a HarnessError; returns the status that it gives.
    """

    def task(composed: DictConfig) -> int:
        chosen = HydraConfig.get()
        # Without the marks by which Hydra keeps `${agent.name}` from being worked out in its own sweep.
        asked = " ".join(chosen.overrides.task).replace("\\{", "{").replace("\\}", "}")
        say(f"session {chosen.job.num + 1}: {asked}")
        try:
            statuses.append(job(compose.with_text_of_task(compose.to_config(composed), chosen.overrides.task)))
        except HarnessError as error:
            statuses.append(report(error))
        except BrokenPipeError:
            raise
        except OSError as error:
            statuses.append(report(of_system(error)))
        return statuses[-1]

    statuses = [0]
    compose.register_schema()
    compose.refuse_fixed(overrides)
    start = hydra.main(version_base="1.3", config_path=str(compose.CONF_DIR), config_name="config")(task)
    with _hydra_arguments(["--multirun", *compose.quote_options(overrides)]):
        try:
            start()
        except compose.HYDRA_ERRORS as error:
            raise compose.explain(error) from error
    return max(statuses)


def begun(config: Config) -> tuple[Path, SessionState] | None:
    """The session of this name, if an earlier multirun began it; None where a new one is to be run.

    Raises ConfigError where the session of this name is another one than `config` would give today, or none at all.
    """
    if config.session.name is None:
        return None
    folder = Path(config.session.root) / config.session.name
    if not folder.exists() or is_unopened(folder):
        return None
    path = folder / "journal.jsonl"
    state = fold(read(path)[0]) if path.is_file() else SessionState()
    if not state.opened:
        raise ConfigError(f"{folder} holds no session and other files: choose another name, or move them away")
    different = next(_differences(state, config), None)
    if different is not None:
        raise ConfigError(
            f"session.name={config.session.name}: {folder} is of another {different}; choose another name, such as "
            "session.name='${task.name}-${agent.name}-${session.seed}', or move that folder away"
        )
    return folder, state


def _without_words(config: dict[str, Any]) -> dict[str, Any]:
    """Of an older version, some are not there yet."""
    return {**config, "task": {name: value for name, value in config["task"].items() if name not in TASK_WORDS}}


def _differences(state: SessionState, config: Config) -> Iterator[str]:
    """In what a session differs from the one that `config` would give, one name each."""
    then, today = (_without_words(each) for each in (state.config, json.loads(canonical(plain(config)))))
    # What the session found out when it began, and the folder in which it was found, however that is written.
    if config.task.clock == "auto" or config.budget.clock != "auto":
        today["task"]["clock"] = then["task"]["clock"]
    if isinstance(agents.load(config.agent), Repeats):
        today["session"]["experiments"] = then["session"]["experiments"]
    today["session"]["root"] = then["session"]["root"]
    for group in sorted({*today, *then}):
        if today.get(group) != then.get(group):
            yield f"configuration ({group})"
    if state.opened["stock_source"] != stock_of(config.task):
        yield "stock train.py"
    if state.opened["program"] != instructions(config):
        yield "program"
    if state.opened["key"]["protocol"] != PROTOCOL_VERSION:
        yield "protocol"


@contextmanager
def _hydra_arguments(arguments: list[str]) -> Iterator[None]:
    """Hydra's entry point reads sys.argv, and hides errors behind its own texts unless this variable says not to."""
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
