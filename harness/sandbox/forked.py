"""Level 0, for the null backend only: children forked from a parent that has already imported torch.

A run on `task=tiny` takes a second; importing torch three times for it would take five. Such sessions are never ranked,
so the missing walls cost nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from harness.protocols import Launch
from harness.sandbox.process import SupervisedProcess, start_supervisor
from harness.wire import Channel


class ForkedSandbox:
    name = "forked"
    level = 0

    def __init__(self, env: Mapping[str, str], preload: tuple[str, ...]) -> None:
        self.env = dict(env)
        self.preload = preload
        self.parent: tuple[Channel, subprocess.Popen[bytes]] | None = None
        self.used = False  # whether anything can be below the parent

    def start(self) -> None:
        """Start the parent if there is none, and do not wait for its imports: other work can go on meanwhile."""
        if self.parent is None or self.parent[0].closed:
            self.parent = start_supervisor(self.env, self.preload)
            self.used = False

    def launch(self, launch: Launch) -> SupervisedProcess:
        self.start()
        assert self.parent is not None
        self.used = True
        return SupervisedProcess(*self.parent, launch, owned=False)

    def close(self) -> None:
        if self.parent is None:
            return
        control, supervisor = self.parent
        control.close()
        if not self.used:
            supervisor.kill()  # whoever leaves before the first run need not wait for seconds of imports
        supervisor.wait()
        self.parent = None
