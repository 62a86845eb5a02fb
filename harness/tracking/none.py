"""No tracker: the session's folder is enough."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.records import Progress


class NoTracker:
    def on_record(self, record: Mapping[str, Any]) -> None:
        """Nothing to show."""

    def on_progress(self, progress: Progress) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to take down."""


def make(_session_dir: Path) -> NoTracker:
    return NoTracker()


def mirror(_session_dir: Path, _bundle: Path | None) -> str:
    raise ConfigError("tracker none mirrors nothing; `bpbench track SESSION` takes another, such as wandb")
