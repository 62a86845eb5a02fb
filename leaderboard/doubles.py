"""One session under two names. Heads and hashes of bundles can be made anew; what was measured cannot, and stays.

Some marks are of one session alone: its nonce, all its block rates. Single figures are not: two honest sessions may
share one by chance. But a copy in which one figure of each kind was changed shares nearly all the others. What these
do not find is a copy with noise on every figure; that is a session made up like any other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping

from harness import ranking
from harness.records import SessionState
from leaderboard import entry
from leaderboard.listing import Problem, problem
from leaderboard.published import Published
from leaderboard.scan import Scan

Figures = frozenset[tuple[str, str]]

FIGURE_DIGITS = 8  # significant: as fine as a clock of nanoseconds tells a tenth of a second
LEAST_DIGITS = 6  # a rounder figure is a limit or a count, and anybody's
# Two honest sessions on one device share hardly one of their hundred or two; about ten of two hundred where bursts of a
# tenth of a second are all within a per cent and the clock is as coarse as a quarter of a microsecond.
MIN_SHARED, MIN_SHARED_PART = 5, 0.25


def doubles(found: Scan) -> Iterator[Problem]:
    """The same bundle, or the same measurements, under two names; each pair once."""
    first: dict[Hashable, str] = {}
    named: set[frozenset[str]] = set()
    for name, what, mark in all_marks(found):
        other = first.setdefault(mark, name)
        if other != name and frozenset((name, other)) not in named:
            named.add(frozenset((name, other)))
            yield problem(name + entry.SUFFIX, f"the same {what} as {other} under another name; remove one")
    known: dict[str, Figures] = {}
    for session in found.sessions:
        own = figures(session)
        for other in copies(own, known):
            if frozenset((session.name, other)) not in named:
                what = f"{len(own & known[other])} figures that were measured once are also in {other}; remove one"
                yield problem(session.name + entry.SUFFIX, what)
        known[session.name] = own


def copies(own: Figures, known: Mapping[str, Figures]) -> list[str]:
    """The sessions among `known` that share more with `own` than two sessions do by chance."""
    shared = ((name, len(own & other), min(len(own), len(other))) for name, other in known.items())
    return [name for name, count, least in shared if count >= max(MIN_SHARED, MIN_SHARED_PART * least)]


def figures(session: Published) -> Figures:
    """Each figure of a clock, and each unrounded score, with what it is of.

    Scores on val, losses, sizes and texts are left out: sessions of one seed on one device share those of the stock
    script, and those of one researcher its prompts.
    """
    if session.bundle is None:
        return frozenset()
    measured = ((what, f"{value:.{FIGURE_DIGITS}g}") for what, value in _measured(session.bundle.state) if value)
    return frozenset((what, shown) for what, shown in measured if _num_digits(shown) >= LEAST_DIGITS)


def _measured(state: SessionState) -> Iterator[tuple[str, float | None]]:
    if made := state.calibration:
        yield "setup", made.setup_seconds
        yield "speed", made.sentinel.tokens_per_second if made.sentinel else None
        yield from (("speed", rate) for rate in (*made.block_tokens_per_second, *made.burst_tokens_per_second))
    for run in ranking.all_runs(state):
        yield from (("setup", run.setup_seconds), ("train", run.train_seconds))
        yield from (("eval", run.eval_seconds), ("wall", run.wall_seconds))
        yield from (("speed", rate) for rate in run.sentinel)
        yield from (("speed", burst.tokens_per_second) for burst in (run.metered.bursts if run.metered else ()))
        if run.split == "test":
            yield "score", run.bpb


def _num_digits(shown: str) -> int:
    """The significant digits of a figure as it is written; 0 of what is no number."""
    mantissa = shown.partition("e")[0].replace(".", "").lstrip("-").strip("0")
    return len(mantissa) if mantissa.isdigit() else 0


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
