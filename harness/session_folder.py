"""The folder of a session: its name, what lies in it from the first moment on, the secret that seeds follow from."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness import seeds
from harness.config import Config, TaskConfig
from harness.device import PROCESSORS, Device
from harness.errors import ConfigError, HarnessError, JournalError
from harness.folders import remove
from harness.journal import Journal, Record, read

_OPENING = frozenset({"secret.json", "config.yaml", "journal.jsonl"})  # what open_session writes


def session_name(config: Config) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    researcher = config.agent.name if config.llm.name == "none" else config.llm.name
    return config.session.name or f"{stamp}-{config.task.name}-{researcher}-s{config.session.seed}"


def check_path(folder: Path, task: TaskConfig, device: Device) -> None:
    """Raises ConfigError where a path of this machine would be taken apart."""
    for what, path in (("the folder of sessions", folder), ("the environment of Python", Path(sys.prefix))):
        if ":" in str(path):  # which stands between the folders where Python looks for packages
            raise ConfigError(f"{what} is {path}: expected a path without colons")
        # torch writes the command line of the C++ compiler without quotes.
        if device.name in PROCESSORS and device.compiles(task) and re.search(r"[\s'\"\\]", str(path)):
            raise ConfigError(f"{what} is {path}: tasks that compile need a path without spaces and quotes")


def free_folder(config: Config) -> Path:
    """Where a new session will lie. Raises ConfigError where something lies there, or the name is none."""
    name = session_name(config)
    folder = Path(config.session.root) / name
    if Path(name).name != name or name.startswith("."):
        raise ConfigError(f"session.name={name!r}: expected a plain folder name; session.root says where it lies")
    if folder.exists() and not is_unopened(folder):
        raise ConfigError(
            f"session.name={name}: {folder} exists already; resume it with `bpbench resume {folder}` or "
            "choose another name"
        )
    return folder


def is_unopened(folder: Path) -> bool:
    """Whether a session was killed there before its first record was whole: none of it is worth keeping."""
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - _OPENING:
        return False
    journal = folder / "journal.jsonl"
    try:
        return not journal.exists() or not read(journal)[0]
    except JournalError:
        return False


def new_folder(config: Config) -> Path:
    folder = free_folder(config)
    remove(folder)
    folder.mkdir(parents=True)
    return folder


def open_session(folder: Path, config: Config, facts: dict[str, Any]) -> tuple[Journal, list[Record]]:
    """Write down what the session is, before anything happens in it."""
    # The step clock makes a session repeatable to the last digit, so its nonce is no secret either.
    ticking = config.task.clock == "ticks"
    nonce = f"{seeds.derive('nonce', config.session.seed):032x}" if ticking else secrets.token_hex(16)
    secret = folder / "secret.json"
    with secret.open("x") as file:
        secret.chmod(0o600)
        json.dump({"nonce": nonce}, file)
        file.flush()
        os.fsync(file.fileno())
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(facts["config"])))
    journal = Journal.create(folder / "journal.jsonl")
    return journal, [journal.append("session_open", nonce_sha256=seeds.commitment(nonce), **facts)]


def read_nonce(folder: Path) -> str:
    """Raises HarnessError where the session came without its secret."""
    try:
        return str(json.loads((folder / "secret.json").read_text())["nonce"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(
            f"{folder / 'secret.json'}: missing or damaged, and seeds follow from it: a session goes on where it began"
        ) from error
