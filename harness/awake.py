"""Keeps a Mac awake while its device is used: asleep it loses requests to a model, half awake it trains slowly."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys


def keep_awake(platform: str = sys.platform) -> None:
    """Until this process ends; closing the lid still sends it to sleep. Other systems are left as they are."""
    if platform != "darwin":
        return
    with contextlib.suppress(OSError):
        subprocess.Popen(["caffeinate", "-i", "-w", str(os.getpid())], stdin=subprocess.DEVNULL)
