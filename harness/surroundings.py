"""What a child process finds around it: environment variables and folders of its own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError

# What private_folders() sets: whatever these are for the user, a child has its own.
PRIVATE = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "LOGNAME")
# What a compiler leaves in a home and another one can start from: its products, and the headers that GCC has read.
# Torch keeps these among its temporary files, under the user's name; without them every run reads them again.
_COMPILED = ("compile_cache", "tmp/torchinductor_*/precompiled_headers")
_USER = "bpbench"


def private_folders(home: Path) -> dict[str, str]:
    for name in ("tmp", "compile_cache"):
        (home / name).mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "compile_cache"),
        "LOGNAME": _USER,  # not who runs this, whom a sandbox may not know
    }


def copy_compiled(source: Path, target: Path) -> None:
    """What a compiler left in the home `source`, into the home `target`; nothing where it left nothing."""
    for folder in (path for pattern in _COMPILED for path in source.glob(pattern)):
        if folder.name == "precompiled_headers" and not any(folder.glob("*.gch")):
            continue  # Clang's hold the path of the folder in which they were made
        # Nor Triton's lists of files, which hold such paths too.
        shutil.copytree(
            folder, target / folder.relative_to(source), ignore=shutil.ignore_patterns("__grp__*"), dirs_exist_ok=True
        )


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
