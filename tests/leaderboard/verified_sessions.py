"""Sessions that tests of the verification doctor, and what is found in them."""

from __future__ import annotations

from collections.abc import Callable

from doctored import Lines, data

from leaderboard.verify import Verified

CONTROLS = "proposals of controls"
SIMULATED = (
    "is not what agent=random proposes",
    "agent=random never ends a session by itself",
    "made from a stock script that is not here",
)


def said(result: Verified) -> str:
    """What was found. Simulated sessions call themselves `random` and propose what a test wants: left out."""
    listed = (
        (name, finding)
        for name, found in result.findings
        for finding in found
        if not any(words in finding.text for words in SIMULATED)
    )
    return "\n".join(f"{finding.level}: {name}: {finding.where}: {finding.text}" for name, finding in listed)


def script(changed: Callable[[str], str]) -> Callable[[Lines], None]:
    """Another third script than the one that ran, with an edit that makes it."""

    def change(lines: Lines) -> None:
        proposal = data(lines, "proposal", 2)
        proposal["source"] = changed(proposal["source"])
        proposal["edit"] = {"source": proposal["source"], "blocks": [], "path": "train.py"}

    return change


METERED = ("task.clock=metered",)
