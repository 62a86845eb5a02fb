"""Control: proposes the incumbent unchanged, so that whatever it gains is noise."""

from __future__ import annotations

from dataclasses import dataclass

from harness.records import Edit, Proposal, View


@dataclass(frozen=True)
class Noop:
    name: str = "noop"

    def propose(self, view: View) -> Proposal:
        return Proposal(hypothesis="no change", edit=Edit(source=view.incumbent_source))


def make() -> Noop:
    return Noop()
