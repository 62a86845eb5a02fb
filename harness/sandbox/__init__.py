"""Walls for untrusted code, one file a level: 3 bubblewrap, 2 landlock (macOS: seatbelt), 1 process, 0 forked.

Supervisors import this package with nothing but the standard library, so what it offers is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.device import Device
    from harness.protocols import Sandbox


def load(
    level: str | int = "auto", *, device: Device | None = None, compiles: bool = False, allow_unsafe: bool = False
) -> Sandbox:
    """The sandbox of that `level`, or the best that works here. See `harness.sandbox.ladder.load`."""
    from harness.sandbox import ladder

    return ladder.load(level, device=device, compiles=compiles, allow_unsafe=allow_unsafe)
