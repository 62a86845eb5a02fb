"""`bpbench verify`: is this bundle consistent with itself? Reads one file; writes nothing, runs nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import JournalError
from leaderboard import bundle, transcripts
from leaderboard.case import Case, Finding, broken, case, unknown
from leaderboard.checks import CHECKS


@dataclass(frozen=True)
class Verified:
    """What the checks said of a bundle."""

    bundle: bundle.Bundle
    case: Case | None  # None: the journal lacks what checks need
    findings: tuple[tuple[str, tuple[Finding, ...]], ...]  # by check, in their order

    @property
    def consistent(self) -> bool:
        """Nothing contradicts anything else. Whether it is true, only a reproduction can tell."""
        return not any(finding.level == "broken" for _, found in self.findings for finding in found)


def verify(path: Path) -> Verified:
    """Check the bundle at `path`. Raises HarnessError where it is none, or a byte of it was changed."""
    whole = bundle.read(path)
    return examine(whole)


def examine(whole: bundle.Bundle) -> Verified:
    """Recompute everything that follows from the records of `whole`."""
    try:
        examined = case(whole.records, whole.state)
    except JournalError as error:
        return Verified(whole, None, (("contents", (broken("journal", str(error)),)),))
    findings = []
    checks = [*CHECKS, ("what the model said", lambda _: transcripts.check(whole.records, whole.state, whole.said))]
    for name, check in checks if transcripts.names(whole.records) else CHECKS:
        try:
            found = tuple(check(examined))
        except JournalError as error:
            found = (broken("journal", str(error)),)
        except (ArithmeticError, ValueError) as error:
            # Strangers' figures: too large to compute with, or texts that are no UTF-8.
            found = (broken("figures", f"cannot be computed with ({type(error).__name__})"),)
        findings.append((name, found))
    return Verified(whole, examined, (("version", _version(examined)), *findings))


def _version(examined: Case) -> tuple[Finding, ...]:
    from harness.opening import PROTOCOL_VERSION

    protocol = examined.opening.key.get("protocol")
    if protocol == PROTOCOL_VERSION:
        return ()
    return (unknown("protocol", f"made under version {protocol!r}; these checks are of version {PROTOCOL_VERSION}"),)
