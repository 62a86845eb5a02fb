"""Sessions that tests of the verification doctor, and what is found in them."""

from __future__ import annotations

from collections.abc import Callable

from doctored import Lines, data

from leaderboard.verify import Verified


def said(result: Verified) -> str:
    return "\n".join(f"{f.level}: {name}: {f.where}: {f.text}" for name, found in result.findings for f in found)


def script(changed: Callable[[str], str]) -> Callable[[Lines], None]:
    """Another third script than the one that ran, with an edit that makes it."""

    def change(lines: Lines) -> None:
        proposal = data(lines, "proposal", 2)
        proposal["source"] = changed(proposal["source"])
        proposal["edit"] = {"source": proposal["source"], "blocks": [], "path": "train.py"}

    return change


METERED = ("task.clock=metered",)
