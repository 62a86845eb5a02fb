"""Trackers: mirrors of the journal elsewhere. The folder is the registry: `tracker.name` is a module here.

Its `make(session_dir) -> Tracker` feeds a tracker while the session runs; its `mirror(session_dir, bundle) -> str`
mirrors a journal as it stands and says where to. A tracker is never the record: whatever it lost, `mirror` brings back.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.config import TrackerConfig
from harness.errors import ConfigError
from harness.protocols import Tracker


def available() -> list[str]:
    """The names that `tracker.name` may have."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def check(config: TrackerConfig) -> None:
    """Raises ConfigError for an unknown name."""
    if config.name not in available():
        raise ConfigError(f"unknown tracker.name '{config.name}'; valid: {', '.join(available())}")


def load(config: TrackerConfig, session_dir: Path) -> Tracker:
    """The tracker that `config` names, for the session in `session_dir`. Raises ConfigError for an unknown name."""
    tracker: Tracker = _module(config).make(session_dir)
    return tracker


def mirror(name: str, session_dir: Path, bundle: Path | None = None) -> str:
    """Mirror the journal of `session_dir` as it stands, replacing an earlier mirror; returns a line saying where to.

    Raises:
        ConfigError: there is no such tracker.
        HarnessError: the mirror could not be completed.
    """
    target: Any = _module(TrackerConfig(name))
    line: str = target.mirror(session_dir, bundle)
    return line


def _module(config: TrackerConfig) -> ModuleType:
    check(config)
    return importlib.import_module(f"{__name__}.{config.name}")
