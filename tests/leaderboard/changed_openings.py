"""Changes to the opening record of a journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doctored import Lines, data


def opened(lines: Lines) -> dict[str, Any]:
    return data(lines, "session_open")


def config(group: str, **values: Any) -> Callable[[Lines], None]:
    return lambda lines: opened(lines)["config"][group].update(values)
