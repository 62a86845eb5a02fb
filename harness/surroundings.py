"""What a child process finds around it: environment variables and folders of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError

# What private_folders() sets: whatever these are for the user, a child has its own.
PRIVATE = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")


def private_folders(home: Path) -> dict[str, str]:
    for name in ("tmp", "compile_cache"):
        (home / name).mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "compile_cache"),
    }


def child_environment(backend_environment: Mapping[str, str]) -> dict[str, str]:
    """The allow-list: what a child needs to find its interpreter's libraries, and nothing of the user's."""
    if not Path(sys.executable).is_absolute():
        raise HarnessError(f"sys.executable={sys.executable!r}: expected an absolute path; start bpbench from a venv")
    allowed = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return {
        **allowed,
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **backend_environment,
    }
