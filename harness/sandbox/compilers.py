"""The system's compilers, as files: what they use of the processor before a clock starts is free."""

from __future__ import annotations

import functools
import mmap
import re
import shutil
import subprocess
import sys
from pathlib import Path

from harness.sandbox.account import File, file_of, mapped_file

_DRIVERS = ("g++", "c++", "gcc", "cc", "clang++", "clang")
_PROGRAMS = ("cc1plus", "cc1", "collect2", "as", "ld", "lto-wrapper", "lto1")
_PLUGIN = "liblto_plugin.so"  # gcc's linker loads it
_ASK_SECONDS = 10.0


@functools.cache
def known() -> tuple[tuple[File, ...], tuple[File, ...]]:
    """The programs, and what is mapped in their processes, libraries too. Both empty where there are no compilers."""
    if not sys.platform.startswith("linux"):
        return (), ()
    programs: set[Path] = set()
    libraries: set[Path] = set()
    for name in _DRIVERS:
        driver = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
        if driver is None:
            continue
        programs.add(Path(driver).resolve())
        programs.update(_absolute(_answer(driver, f"-print-prog-name={program}")) for program in _PROGRAMS)
        libraries.add(_absolute(_answer(driver, f"-print-file-name={_PLUGIN}")))
    programs.discard(Path())
    for program in programs:
        # Lines such as `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x...)`, and the loader's own path alone.
        found = re.findall(r"(/\S+) \(0x", _answer("ldd", str(program)))
        libraries.update(Path(path).resolve() for path in found)
    return _files(programs), _mapped(programs | libraries)


def _absolute(answer: str) -> Path:
    """A driver that does not know a program answers its bare name, which is on the PATH or nowhere."""
    found = answer if answer.startswith("/") else shutil.which(answer, path="/usr/local/bin:/usr/bin:/bin")
    return Path(found).resolve() if found else Path()


def _answer(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _files(paths: set[Path]) -> tuple[File, ...]:
    return tuple(sorted(file for path in paths if path.is_file() and (file := file_of(str(path))) is not None))


def _mapped(paths: set[Path]) -> tuple[File, ...]:
    """The same as a process's list of mappings names them: on some file systems by another device than stat(2) does."""
    found = set()
    for path in paths:
        if not path.is_file() or path.stat().st_size == 0:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ):
            for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
                fields = line.split(maxsplit=5)
                if fields[5:] == [str(path)]:
                    found.add(mapped_file(fields[3], fields[4]))
    return tuple(sorted(found))
