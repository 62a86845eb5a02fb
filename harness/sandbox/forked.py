"""Level 0, for the null backend only: children forked from a parent that has already imported torch.

A run on `task=tiny` takes a second; importing torch three times for it would take five. Such sessions are never ranked,
so the missing walls cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.protocols import Launch
from harness.sandbox.process import SupervisedProcess, start_supervisor


class ForkedSandbox:
    name = "forked"
    level = 0

    def __init__(self, env: Mapping[str, str], preload: tuple[str, ...]) -> None:
        self.env = dict(env)
        self.preload = preload
        self.parent: SupervisedProcess | None = None

    def launch(self, launch: Launch) -> SupervisedProcess:
        if self.parent is None or self.parent.control.closed:
            control, supervisor = start_supervisor(self.env, self.preload)
        else:
            control, supervisor = self.parent.control, self.parent.supervisor
        self.parent = SupervisedProcess(control, supervisor, launch, owned=False)
        return self.parent

    def close(self) -> None:
        if self.parent:
            self.parent.control.close()
            self.parent.supervisor.wait()
            self.parent = None
