"""A supervisor's work where its children are forked from it: importing for all of them, and running one in place."""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import sys


def preload(modules: list[str]) -> None:
    """Import what every child needs.

    Nothing of it is ever freed, so the garbage collector need not look at it: during the imports that costs a fifth of
    their time, and in a child it would copy every page that it looks at.
    """
    gc.disable()
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    gc.enable()


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
