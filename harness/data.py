"""Runs the trainer's data preparation as a process of its own and hands back what it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.config import Config
from harness.errors import DataError
from harness.sandbox.runtime import PACKAGES, PROJECT

SYSTEM_LIB = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib"), Path("/usr/local/lib64"))
NIX_STORE = Path("/nix/store")
OnStage = Callable[[dict[str, Any]], None]  # {"stage", "done", "total", "unit"}


@dataclass(frozen=True)
class DataInfo:
    path: Path
    meta: dict[str, Any]


def home() -> Path:
    """Where prepared data and calibrations live: $BPBENCH_HOME, by default ~/.cache/bpbench."""
    return Path(os.environ.get("BPBENCH_HOME") or Path.home() / ".cache" / "bpbench").expanduser().absolute()


def runtime_paths(lib: Sequence[Path] = SYSTEM_LIB, more: str | None = None) -> list[str]:
    """Text that the sandbox (harness/sandbox/runtime.py) will let agent code read: Python packages above all.

    The interpreter's library and what is installed, of a virtual environment and of what it was made from; what
    the system's package manager installs for its own Python, since the folders in `lib` are open for their libraries;
    this project's own packages; and the folders in `more`, by default LD_LIBRARY_PATH, which are open as a whole.
    """
    own = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    system = [*lib, *NIX_STORE.glob("*/lib")] if NIX_STORE.is_dir() else lib
    homes = [*own, *(folder for root in system for folder in sorted(root.glob("python3*")))]
    # Those inside a library are named too: a change is seen in the names at the top of a folder.
    nested = [home / name for home in homes for name in ("site-packages", "dist-packages")]
    listed = os.environ.get("LD_LIBRARY_PATH", "") if more is None else more
    opened = [Path(name) for name in listed.split(":") if name.startswith("/")]
    ours = [PROJECT / name for name in PACKAGES]
    return sorted({str(path) for path in [*homes, *nested, *opened, *ours] if path.is_dir()})


def request_of(config: Config) -> dict[str, Any]:
    """What the preparation is asked for, see docs/architecture.md."""
    task = config.task
    return {
        "data": OmegaConf.to_container(OmegaConf.structured(config.data), resolve=True),
        "task": {
            "vocab_size": task.vocab_size,
            "sequence_length": task.sequence_length,
            "num_eval_windows": task.num_eval_windows,
            "num_decoy_tokens": task.num_decoy_tokens,
        },
        "home": str(home()),
        # Generated text can be generated again by whoever reads trainer/data/synthetic.py, and is never ranked: looking
        # through every installed package for it would take most of a dry run.
        "runtime_paths": [] if config.data.source == "synthetic" else runtime_paths(),
    }


def prepare(config: Config, on_stage: OnStage) -> DataInfo:
    """Make the data set that `config` asks for, or find it ready. Raises DataError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request_of(config)))
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "trainer.data.prepare", str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            return follow(process, on_stage)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()


def follow(process: subprocess.Popen[str], on_stage: OnStage) -> DataInfo:
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        match event["event"]:
            case "progress":
                on_stage(event)
            case "done":
                return DataInfo(Path(event["path"]), event["meta"])
            case "error":
                raise DataError(event["message"])
    raise DataError(f"data preparation ended with status {process.wait()} and no message; run it again, it picks up")
