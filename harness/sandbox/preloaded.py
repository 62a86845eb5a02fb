"""A supervisor's work where its children are forked from it: importing for all of them, and running one in place."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def preload(modules: list[str]) -> None:
    """Import what every child needs.

    Nothing of it is ever freed, so the garbage collector need not look at it: during the imports that costs a fifth of
    their time, and in a child it would copy every page that it looks at.
    """
    die_with_parent(True)
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    gc.enable()
    die_with_parent(False)


def die_with_parent(wanted: bool) -> None:
    """Whether the kernel kills this process when the thread that started it ends, as with a killed harness (Linux).

    Wanted during seconds of imports, in which nobody reads the control socket. Not wanted once a tree can be below this
    process: that has to be killed first.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if wanted else 0, 0, 0, 0)


def run_in_place(argv: list[str], env: dict[str, str]) -> int:
    """Run `python [-flags] script` or `python [-flags] -m module` in this forked process."""
    os.environ.clear()
    os.environ.update(env)
    arguments = argv[1:]
    while arguments[0].startswith("-") and arguments[0] != "-m":
        arguments = arguments[1:]
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            print(exit_.code, file=sys.stderr)
            return 1
        return exit_.code or 0
    return 0
