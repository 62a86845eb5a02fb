"""Whose processor time it was: a compiler's, or that of somebody who looks like one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.protocols import Launch
from harness.sandbox import compilers
from harness.sandbox.account import file_of
from harness.sandbox.process import ProcessSandbox

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the account is kept from /proc"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]

# A second of cc1plus, or several with a larger DEPTH.
SLOW_TO_COMPILE = """
#include <map>
#include <functional>
using Map = std::map<int, std::function<int()>>;
template <int N> struct Chain {
    static int of(Map& m) { m[N] = [] { return N; }; return Chain<N - 1>::of(m); }
};
template <> struct Chain<0> { static int of(Map&) { return 0; } };
#ifndef DEPTH
#define DEPTH 60
#endif
int main() { Map m; return Chain<DEPTH>::of(m); }
"""
BUSY_LIBRARY = """
#include <time.h>
__attribute__((constructor)) static void work(void) {
    struct timespec t;
    do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); while (t.tv_sec == 0 && t.tv_nsec < 400000000);
}
"""


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "slow.cpp").write_text(SLOW_TO_COMPILE)
    yield tmp_path


def own_seconds(box: Path, script: str) -> tuple[float, float]:
    """Its processor seconds without those of compilers, and what the compilers' own clocks say, as `script` prints."""
    launch = Launch(
        argv=(sys.executable, "-I", "-S", "-c", textwrap.dedent(script)),
        cwd=box,
        env={"PATH": "/usr/bin:/bin"},
        fds=(),
        log_path=box / "log.txt",
        max_log_bytes=10_000,
        max_memory_bytes=None,
        apart_from_compilers=True,
    )
    process = ProcessSandbox().launch(launch)
    try:
        while "done" not in (log := (box / "log.txt").read_text()):
            assert process.poll() is None, log
            time.sleep(0.02)
        own = process.own_cpu_seconds()
        assert own is not None
        return own, float(log.split()[0])
    finally:
        process.kill()


TIMED = """
import os, subprocess, time
def compile(*options, **env):
    subprocess.run(["g++", *options, "-c", "slow.cpp", "-o", "slow.o"], check=True, env={**os.environ, **env})
def busy(seconds):
    ends = time.process_time() + seconds
    while time.process_time() < ends: pass
def finish():
    times = os.times()
    print(times.children_user + times.children_system, "done", flush=True)
    time.sleep(60)
"""

# A page of the compiler's own code is replaced by itself: the file is still the system's, what runs need not be.
WRITTEN_INTO = """
child = subprocess.Popen(["g++", "-c", "slow.cpp", "-o", "slow.o"])
cc1plus = []
while not cc1plus:
    pids = open(f"/proc/{child.pid}/task/{child.pid}/children").read().split()
    cc1plus = [pid for pid in pids if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "cc1plus"]
found = []
while not found:
    found = [line for line in open(f"/proc/{cc1plus[0]}/maps") if " r-xp " in line and line.rstrip().endswith(WHERE)]
with open(f"/proc/{cc1plus[0]}/mem", "r+b", buffering=0) as memory:
    memory.seek(int(found[0].split("-")[0], 16))
    page = memory.read(4096)
    memory.seek(-4096, 1)
    memory.write(page)
child.wait()
finish()
"""


def test_what_a_compiler_uses_is_left_out(box: Path) -> None:
    own, compiled = own_seconds(box, TIMED + "compile('-DDEPTH=200'); busy(0.3); finish()")
    assert compiled > 0.5, "too short to be seen"
    assert own < 0.3 + 0.7 * compiled, "ten looks a second miss its first and last tenth"


def test_compilers_are_files_of_the_system() -> None:
    programs, libraries = compilers.known()
    assert file_of(shutil.which("g++") or "") in programs
    assert file_of(sys.executable) not in (*programs, *libraries)


@pytest.mark.parametrize("how", ["preloaded", "renamed", "cc1plus", "[vdso]"])
def test_code_in_the_guise_of_a_compiler_counts(box: Path, how: str) -> None:
    if how == "preloaded":
        (box / "busy.c").write_text(BUSY_LIBRARY)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", "busy.so", "busy.c"], cwd=box, check=True)
        script = TIMED + "compile(LD_PRELOAD=os.path.abspath('busy.so')); finish()"
    elif how in ("cc1plus", "[vdso]"):
        script = TIMED + f"WHERE = {how!r}\n" + WRITTEN_INTO
    else:
        shutil.copy(sys.executable, box / "cc1plus")
        script = TIMED + textwrap.dedent("""
            work = "import time\\nwhile time.process_time() < 1: pass"
            subprocess.run([os.path.abspath("cc1plus"), "-I", "-S", "-c", work], check=True)
            finish()
        """)
    own, children = own_seconds(box, script)
    assert own >= 0.9 * children >= 0.5
