"""Weights & Biases: one run per session, grouped by study (key and researcher), rebuilt from the journal at any time.

Offline, without an account, where no key is set; online with one. WANDB_MODE, WANDB_API_KEY, WANDB_PROJECT,
WANDB_ENTITY and WANDB_BASE_URL are honoured, other WANDB_* variables are not: a stray WANDB_RUN_ID would send one
session's figures into another's run. Nothing of W&B runs in this process: see _mirror.py and _wandb_worker.py.
"""

from __future__ import annotations

import configparser
import netrc
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from harness.errors import ConfigError, DataError
from harness.fold import fold
from harness.journal import read
from harness.tracking._mirror import Mirror, Worker, run_to_end

HONOURED = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_BASE_URL")
MODES = ("online", "offline", "disabled")
PROJECT = "bpbench"
SERVER = "https://api.wandb.ai"
LINGER_SECONDS = 120  # after the end of a session, in the background
MIRROR_SECONDS = 300  # for `bpbench track`, which somebody waits for


def make(session_dir: Path) -> Mirror:
    return Mirror(worker(session_dir, os.environ, LINGER_SECONDS))


def mirror(session_dir: Path, bundle: Path | None) -> str:
    records, _ = read(session_dir / "journal.jsonl")
    if fold(records).opened_at is None:
        raise DataError(f"{session_dir}: the session never opened, there is nothing to mirror; start it again")
    if bundle is not None and not bundle.is_file():
        raise ConfigError(f"--bundle {bundle}: no such file; expected what `bpbench bundle {session_dir}` wrote")
    if os.environ.get("WANDB_MODE") == "disabled":
        raise ConfigError("WANDB_MODE=disabled: nothing is mirrored; unset it, or set it to online or offline")
    return run_to_end(worker(session_dir, os.environ, MIRROR_SECONDS, bundle))


def worker(session_dir: Path, environment: Mapping[str, str], seconds: int, bundle: Path | None = None) -> Worker:
    """The process that mirrors `session_dir`; it has `seconds` once its standard input has ended."""
    folder = session_dir.absolute()
    command = [sys.executable, "-I", "-m", "harness.tracking._wandb_worker", str(folder), str(seconds)]
    return Worker(
        name="wandb",
        command=(*command, *([str(bundle.absolute())] if bundle else [])),
        environment=worker_environment(environment, folder),
        log_path=folder / "wandb" / "mirror.log",
        remedy=f"`bpbench track {session_dir}` mirrors it again",
    )


def worker_environment(environment: Mapping[str, str], session_dir: Path) -> dict[str, str]:
    """`environment` with W&B's variables replaced by ours and the honoured ones."""
    kept = {name: value for name, value in environment.items() if not name.startswith("WANDB_") or name in HONOURED}
    own = session_dir / "wandb"
    server = environment.get("WANDB_BASE_URL") or stored("base_url", environment)
    return {
        **kept,
        **({"WANDB_BASE_URL": server} if server else {}),
        "WANDB_MODE": mode(environment),
        "WANDB_PROJECT": environment.get("WANDB_PROJECT") or PROJECT,
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",  # W&B's own crash reports would be network calls
        "WANDB_DATA_DIR": str(own),
        "WANDB_CACHE_DIR": str(own / "cache"),
        "WANDB_CONFIG_DIR": str(own / "config"),
    }


def mode(environment: Mapping[str, str]) -> str:
    """WANDB_MODE or `wandb offline` where that was said, else online with a key (WANDB_API_KEY or .netrc)."""
    if asked := environment.get("WANDB_MODE") or stored("mode", environment):
        return asked
    return "online" if environment.get("WANDB_API_KEY") or _key_in_netrc(environment) else "offline"


def stored(name: str, environment: Mapping[str, str]) -> str | None:
    """What `wandb login --host` and `wandb offline` have left: in the working folder, then in the user's own."""
    home = Path(environment.get("HOME") or Path.home())
    folders = (Path("wandb"), Path(environment.get("WANDB_CONFIG_DIR") or home / ".config" / "wandb"))
    for folder in folders:
        settings = configparser.ConfigParser(interpolation=None)
        with suppress(OSError, configparser.Error, UnicodeDecodeError):
            settings.read(folder / "settings", encoding="utf-8")
            if value := settings.get("default", name, fallback="").strip():
                return value
    return None


def _key_in_netrc(environment: Mapping[str, str]) -> bool:
    """Whether `wandb login` has left a key for the server."""
    path = Path(environment.get("NETRC") or Path(environment.get("HOME") or Path.home()) / ".netrc")
    host = urlsplit(environment.get("WANDB_BASE_URL") or stored("base_url", environment) or SERVER).netloc
    try:
        return host in netrc.netrc(path).hosts  # not its `default`: that is no key of W&B's
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
