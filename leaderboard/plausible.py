"""What no rule forbids and yet deserves a look: figures that a device or a text would hardly give."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from itertools import pairwise

from harness.ranking import TRAINED_SHARE
from harness.records import STOCK_ROLES, Status
from harness.views import text
from leaderboard import installed
from leaderboard.case import Case, Finding, odd
from leaderboard.inference import standard_deviation

BPB_BAND = (0.2, 8.0)  # 8: every byte equally likely; below 0.2 text would have to repeat itself
MAX_GAIN_SHARE = 0.3  # of the baseline
MAX_PAYLOAD_BYTES, MAX_PAYLOAD_SHARE = 1024, 0.5  # compressed
MAX_SPREAD_SIGMAS = 5.0
BAND_SLACK_SIGMAS = 3.0  # beyond the task's reference_bpb: other devices differ a little more than those measured
WALL_SLACK_SECONDS, WALL_SLACK_SHARE = 5.0, 0.05


def check_plausibility(case: Case) -> Iterator[Finding]:
    yield from _scores(case)
    yield from _payload(case)
    yield from _pauses(case)
    yield from _speed(case)
    yield from _clocks(case)


def _scores(case: Case) -> Iterator[Finding]:
    for run in case.finished:
        bpb = run.result.bpb if run.result else None
        if bpb is not None and not BPB_BAND[0] < bpb < BPB_BAND[1]:
            yield odd(run.identity.run_id, f"{bpb:g} bits per byte")
    yield from _band(case)
    values = [run.bpb for run in case.state.baseline if run.bpb is not None]
    if len(values) > 1 and (scatter := standard_deviation(values)) > MAX_SPREAD_SIGMAS * case.task.sigma_prior_bpb:
        yield odd("baseline", f"its seeds scatter by {scatter:.4f} bpb")
    gain, baseline = case.state.gain, case.state.baseline_bpb
    if gain and gain.mean_bpb is not None and baseline and gain.mean_bpb > MAX_GAIN_SHARE * baseline:
        yield odd("confirmation", f"a gain of {100 * gain.mean_bpb / baseline:.0f} % of the baseline")


def _band(case: Case) -> Iterator[Finding]:
    """Where the baseline of this task and text has been so far, on whatever device."""
    here, data = installed.task(case.task.name), case.state.config.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    band = here.reference_bpb.get(str(source)) if here else None
    value = case.state.baseline_bpb
    if not here or not band or value is None:
        return
    slack = BAND_SLACK_SIGMAS * here.sigma_prior_bpb
    if not band[0] - slack <= value <= band[1] + slack:
        yield odd("baseline", f"{value:.4f} bpb on val, where it was {band[0]:g} to {band[1]:g} so far")


def _payload(case: Case) -> Iterator[Finding]:
    """Code compresses to a third. What does not may be data: who knows the text of the evaluation could put it in."""
    best = case.state.incumbent
    stock = set(str(case.state.opened.get("stock_source")).splitlines())
    added = "\n".join(line for line in (best.source or "" if best else "").splitlines() if line not in stock).encode()
    packed = len(zlib.compress(added, 9))
    if packed > MAX_PAYLOAD_BYTES and packed > MAX_PAYLOAD_SHARE * len(added):
        yield odd("winner", f"{len(added):,} bytes of new lines that compress to {packed:,} only: read it for data")


def _pauses(case: Case) -> Iterator[Finding]:
    """Gaps before a resume: a copy of the folder could have been tried meanwhile, and thrown away."""
    gaps = [later.time - earlier.time for earlier, later in pairwise(case.records) if later.type == "resumed"]
    if gaps:
        yield odd("resumed", f"{text.count(len(gaps), 'time')}, after {math.fsum(gaps):,.0f} s without a record")


def _speed(case: Case) -> Iterator[Finding]:
    """The stock script's own count of tokens, on a device that was calibrated to let it see reference_tokens."""
    if case.task.clock == "ticks":
        return
    low, high = TRAINED_SHARE
    for run in case.finished:
        result = run.result
        if run.identity.role not in STOCK_ROLES or result is None or result.status is not Status.OK:
            continue
        tokens = result.curve[-1].tokens if result.curve else None
        if tokens is None:
            yield odd(run.identity.run_id, "the stock script told no count of tokens")
        elif not low <= tokens / max(1, case.task.reference_tokens) <= high:
            share = 100 * tokens / max(1, case.task.reference_tokens)
            yield odd(run.identity.run_id, f"the stock script saw {share:.0f} % of reference_tokens")


def _clocks(case: Case) -> Iterator[Finding]:
    """UTC between a run's two records against the runner's own clock; and time that runs backwards."""
    for run in case.finished:
        wall = run.result.wall_seconds if run.result else None
        if wall is None or run.finished is None:
            continue
        between = run.finished.time - run.started.time
        if abs(between - wall) > WALL_SLACK_SECONDS + WALL_SLACK_SHARE * wall:
            yield odd(run.identity.run_id, f"took {wall:.1f} s by its own clock, {between:.1f} s between its records")
    back = sum(later.time < earlier.time for earlier, later in pairwise(case.records))
    if back:
        yield odd("clock", f"was set back {back} times")
