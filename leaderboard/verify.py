"""`bpbench verify`: is this bundle consistent with itself? Reads one file; writes nothing, runs nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import JournalError
from harness.opening import PROTOCOL_VERSION
from leaderboard import bundle, transcripts
from leaderboard.case import Case, Finding, broken, case, unknown
from leaderboard.checks import CHECKS, Check
from leaderboard.proposals import check_answers

# Strangers' figures and texts: too large to compute with, no UTF-8, or nothing that a library expects.
_STRANGE = (JournalError, TypeError, AttributeError, LookupError, ValueError, ArithmeticError, RecursionError)


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
    """Recompute everything that follows from the records of `whole`. Whatever they hold, there are findings."""
    checks: list[tuple[str, Check]] = [("version", _version), *CHECKS]
    try:
        examined = case(whole.records, whole.state)
        if transcripts.names(whole.records):
            checks.append(("what the model said", lambda _: transcripts.check(whole.records, whole.state, whole.said)))
            checks.append(("proposals of the model", lambda _: check_answers(whole.records, whole.state, whole.said)))
    except _STRANGE as error:
        return Verified(whole, None, (("contents", (_failed(error),)),))
    return Verified(whole, examined, tuple((name, _found(check, examined)) for name, check in checks))


def _found(check: Check, examined: Case) -> tuple[Finding, ...]:
    try:
        return tuple(check(examined))
    except _STRANGE as error:
        return (_failed(error),)


def _failed(error: Exception) -> Finding:
    if isinstance(error, JournalError):
        return broken("journal", str(error))
    return broken("figures", f"cannot be checked: {type(error).__name__}")


def _version(examined: Case) -> Iterator[Finding]:
    protocol = examined.opening.key.get("protocol")
    if protocol != PROTOCOL_VERSION:
        what = f"made under version {protocol!r}; these checks are of version {PROTOCOL_VERSION}"
        yield unknown("protocol", what)
