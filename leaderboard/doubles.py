"""One session under two names. Heads and hashes of bundles can be made anew; what was measured cannot, and stays."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from leaderboard import entry
from leaderboard.listing import Problem, problem
from leaderboard.published import Published
from leaderboard.scan import Scan


def doubles(found: Scan) -> Iterator[Problem]:
    """The same bundle, or the same measurements, under two names; each pair once."""
    first: dict[Hashable, str] = {}
    named: set[frozenset[str]] = set()
    for name, what, mark in all_marks(found):
        other = first.setdefault(mark, name)
        if other != name and frozenset((name, other)) not in named:
            named.add(frozenset((name, other)))
            yield problem(name + entry.SUFFIX, f"the same {what} as {other} under another name; remove one")


def all_marks(found: Scan) -> Iterator[tuple[str, str, Hashable]]:
    """(name, bundle or session, mark) of everything that is there."""
    yield from ((name, "bundle", bundle_mark(made.bundle_sha256)) for name, made in sorted(found.entries.items()))
    yield from ((session.name, "session", mark) for session in found.sessions for mark in marks(session))


def bundle_mark(sha256: str) -> Hashable:
    return "bundle", sha256


def marks(session: Published) -> Iterator[tuple[str, Hashable]]:
    """What no second session has.

    The stock script's scores on val alone would be no mark: its seeds are those of the session seed, and scores there
    are rounded. With the seconds that they took they are one. On test every seed comes from the session's own nonce.
    """
    if session.bundle is None:
        return
    state = session.bundle.state
    yield "nonce", str(state.opened.get("nonce_sha256"))
    if state.calibration and state.calibration.block_tokens_per_second:
        yield "rates", state.calibration.block_tokens_per_second
    baseline = tuple((run.bpb, run.train_seconds) for run in state.baseline)
    if any(seconds is not None for _, seconds in baseline):
        yield "baseline", baseline
    for runs in (state.confirm_baseline, state.confirm_candidate):
        scores = tuple(run.bpb for run in runs)
        if any(score is not None for score in scores):
            yield "confirmation", scores
