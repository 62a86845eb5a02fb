"""What a child process finds around it: environment variables and folders of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError

# What private_folders() sets: whatever these are for the user, a child has its own.
PRIVATE = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "USER", "LOGNAME")
USER = "box"  # whom code takes itself for, whoever runs it and whatever a sandbox knows of that
# The headers that GCC has read; torch keeps them among its temporary files, under the user's name.
HEADERS = f"torchinductor_{USER}/precompiled_headers"
# What a compiler leaves in a home and another one can start from. Without the headers every run reads them again.
_COMPILED = ("compile_cache", f"tmp/{HEADERS}")


def private_folders(home: Path) -> dict[str, str]:
    for name in ("tmp", "compile_cache"):
        (home / name).mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "compile_cache"),
        "USER": USER,
        "LOGNAME": USER,
    }


def copy_compiled(source: Path, target: Path) -> None:
    """What a compiler left in the home `source`, into the home `target`; nothing where it left nothing."""
    # Not Triton's lists of files nor the headers of Clang: these hold paths into the folder where they were made.
    ignored = shutil.ignore_patterns("__grp__*", "*.pch")
    for name in _COMPILED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=ignored, dirs_exist_ok=True)


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
