"""Every number of a session again, from the raw records it was derived from.

Each check takes a case and yields what it finds; a check that finds nothing has passed. That makes a session
*consistent*, never *true*: who invents raw records consistently passes. Only a reproduction tells.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

from harness import seeds, stats
from harness.errors import JournalError
from harness.rate import between
from harness.records import Calibration, Gain, Role, Status
from harness.sandbox import canaries
from leaderboard.case import Case, Finding, broken, odd, unknown
from leaderboard.decisions import check_decisions, check_history
from leaderboard.figures import check_figures
from leaderboard.plausible import BPB_BAND, check_plausibility
from leaderboard.proposals import check_controls
from leaderboard.runs import check_runs

ROUNDING = 1e-9  # relative; scipy's quantiles differ in the last digits between versions
KEY_FIELDS = ("task", "reference_tokens", "stock_sha256", "data_sha256", "tokenizer_sha256", "clock")
_PHASES = {
    "session_open": 0,
    "calibration": 1,
    "baseline": 3,
    "proposal_started": 4,
    "proposal": 4,
    "decision": 4,
    "stopped": 4,
    "confirmed": 6,
    "closed": 7,
}
# A resumed session goes on from what there is. Of two, readers could differ about which one they mean.
_ONCE = ("calibration", "baseline", "confirmed")
_RUN_PHASES = {
    Role.BASELINE: 2,
    Role.EXPERIMENT: 4,
    Role.RERUN: 4,
    Role.CONFIRM_BASELINE: 5,
    Role.CONFIRM_CANDIDATE: 5,
}


def check_opening(case: Case) -> Iterator[Finding]:
    """Hashes of what the opening record holds, and the key that follows from it."""
    opening, task = case.opening, case.task
    for name, source, stated in (
        ("stock", opening.stock_source, opening.stock_sha256),
        ("program", opening.program, opening.program_sha256),
    ):
        if _sha256(source) != stated:
            yield broken("opening", f"{name}_sha256 is not the hash of the {name} text in the journal")
    derived: dict[str, Any] = {
        "task": task.name,
        "reference_tokens": task.reference_tokens,
        "stock_sha256": opening.stock_sha256,
        "data_sha256": opening.data.get("data_sha256"),
        "tokenizer_sha256": opening.data.get("tokenizer_sha256"),
        "clock": task.clock,
    }
    for name in KEY_FIELDS:
        if derived[name] is None:
            yield broken("opening", f"nothing says what {name} is")
        if opening.key.get(name) != derived[name]:
            yield broken("opening", f"key.{name} is {opening.key.get(name)!r}, the session's own is {derived[name]!r}")
    for name, planned in (("num_baseline", task.baseline_seeds), ("num_confirm", task.confirm_seeds)):
        if getattr(opening, name) != planned:
            yield broken("opening", f"{name} is {getattr(opening, name)}, the task's configuration says {planned}")
    yield from _check_ranking(case)


def _check_ranking(case: Case) -> Iterator[Finding]:
    """A session that cannot be ranked says so."""
    walls = case.state.walls
    open_walls = list(canaries.missing(walls)) if walls else []
    if case.task.clock == "ticks" or open_walls:
        why = open_walls[0] if open_walls else "a session on the step clock"
        if not case.state.unranked:
            yield broken("opening", f"does not say that it is not ranked: {why}")


def check_nonce(case: Case) -> Iterator[Finding]:
    if case.nonce is None:
        if case.state.closed:
            yield broken("nonce", "the session closed without revealing its nonce")
        else:
            yield unknown("nonce", "the session has not closed: its confirmation seeds cannot be checked")
    elif seeds.commitment(case.nonce) != case.opening.nonce_sha256:
        yield broken("nonce", "the revealed nonce is not the one that the journal committed to at its start")


def check_order(case: Case) -> Iterator[Finding]:
    """Calibrate, baselines, experiments one after the other, confirmation in ABBA order; every restart visible."""
    yield from _after_the_end(case)
    yield from _more_than_once(case)
    latest = 0
    for record in case.records:
        phase = _PHASES.get(record.type, latest)
        if record.type in ("run_started", "run_drifted", "run_finished"):
            phase = _RUN_PHASES[Role(record.data["role"])]
        if phase < latest:
            yield broken(
                f"record {record.seq}", f"{record.type} is out of place: a later part of the session had begun"
            )
        latest = max(latest, phase)
    for run in case.runs:
        if run.result is None and run.drifted is None and not run.resumed:
            yield broken(f"record {run.started.seq}", f"{run.identity.run_id} was given up without a visible restart")
    unfinished = sum(run.result is None and run.drifted is None for run in case.runs)
    if unfinished:
        yield odd("restarts", f"{unfinished} of {len(case.runs)} runs were cut off and made again")
    done = [(run.identity.role, run.identity.index) for run in case.finished if run.identity.split == "test"]
    if done != [seeds.confirmation_run(place) for place in range(len(done))]:
        yield broken("confirmation", "the runs are not in ABBA order")


def _after_the_end(case: Case) -> Iterator[Finding]:
    """`closed` is the last record: one more line would give another head, under which a session could come twice."""
    ends = [place for place, record in enumerate(case.records) if record.type == "closed"]
    if ends and ends[0] + 1 < len(case.records):
        late = case.records[ends[0] + 1]
        yield broken(f"record {late.seq}", f"{late.type} comes after the session had closed")


def _more_than_once(case: Case) -> Iterator[Finding]:
    kinds = [record.type for record in case.records]
    for kind in _ONCE:
        if (times := kinds.count(kind)) > 1:
            yield broken(kind, f"is there {times} times, and a session has one")


def check_seeds(case: Case) -> Iterator[Finding]:
    """Every seed is the one that the rules deal; no run was made twice with another."""
    for run in case.runs:
        identity = run.identity
        confirming = identity.role in (Role.CONFIRM_BASELINE, Role.CONFIRM_CANDIDATE)
        if confirming and case.nonce is None:
            continue
        dealt = seeds.deal(case.task.name, case.session.seed, identity.role, identity.index, case.nonce or "")
        if identity.seed != dealt:
            yield broken(identity.run_id, f"its seed is {identity.seed}, the rules deal {dealt}")
        if identity.run_id != f"{identity.role}-{identity.index:03d}":
            yield broken(identity.run_id, f"the name does not fit {identity.role} {identity.index}")
        if identity.split != ("test" if confirming else "val"):
            yield broken(identity.run_id, f"scored on {identity.split!r}")


def check_calibration(case: Case) -> Iterator[Finding]:
    """The rate from its blocks, the budget from the rate."""
    made, task = case.state.calibration, case.task
    if task.clock not in ("wall", "metered", "ticks"):
        yield unknown("calibration", f"this version does not know the clock {task.clock!r}")
    elif made is None:
        if task.clock != "ticks" and case.state.baseline:
            yield broken("calibration", "there is none, and runs were made")
    elif len(made.block_tokens_per_second) < 6:
        yield broken("calibration", f"{len(made.block_tokens_per_second)} blocks; at least 6 are measured")
    elif min(made.block_tokens_per_second) <= 0:
        yield broken("calibration", "a block without tokens")
    else:
        yield from _check_budget(made, case)


def _check_budget(made: Calibration, case: Case) -> Iterator[Finding]:
    task = case.task
    if task.clock == "wall" and made.sentinel is None:
        yield broken("calibration", "the clock is the wall's, and no sentinel's rate says when a run is to be repeated")
    rate, low, high = stats.median_interval(made.block_tokens_per_second)
    gate = 50.0 * (high - low) / rate * task.slope_bpb_per_percent
    if task.clock == "metered":
        if made.pattern is None or len(made.burst_tokens_per_second) != len(made.block_tokens_per_second) + 1:
            yield broken("calibration", "the clock is metered, and there is no pattern with a burst around each block")
            return
        ratio = stats.ratio_interval(made.block_tokens_per_second, between(made.burst_tokens_per_second))
        gate = 50.0 * (ratio.high - ratio.low) / ratio.value * task.slope_bpb_per_percent
        if not same(made.pattern.stock_per_burst, ratio.value):
            stated = made.pattern.stock_per_burst
            yield broken("calibration", f"stock_per_burst is {stated}, its blocks give {ratio.value}")
    pairs = (
        ("tokens_per_second", made.tokens_per_second, rate),
        ("tokens_per_second_low", made.tokens_per_second_low, low),
        ("tokens_per_second_high", made.tokens_per_second_high, high),
        ("budget_seconds", made.budget_seconds, task.reference_tokens / rate),
        ("gate_bpb", made.gate_bpb, gate),
    )
    for name, claimed, derived in pairs:
        if not same(claimed, derived):
            yield broken("calibration", f"{name} is {claimed}, its blocks give {derived}")
    if made.calibrated != (gate <= task.sigma_prior_bpb / 2):
        yield broken("calibration", f"calibrated is {made.calibrated}, its gate says otherwise")
    if not task.min_budget_seconds <= made.budget_seconds <= task.max_budget_seconds:
        yield broken("calibration", f"a budget of {made.budget_seconds:g} s is outside the task's limits")


def check_baseline(case: Case) -> Iterator[Finding]:
    """The mean, and sigma from everything that it was pooled from."""
    record = next((record for record in case.records if record.type == "baseline"), None)
    if record is None:
        return
    values = [run.bpb for run in case.state.baseline if run.bpb is not None]
    if len(case.state.baseline) != case.opening.num_baseline or len(values) != len(case.state.baseline):
        yield broken("baseline", f"{len(values)} values from {case.opening.num_baseline} seeds")
        return
    if not same(case.state.baseline_bpb, fmean(values)):
        yield broken("baseline", f"the mean is {case.state.baseline_bpb}, its runs give {fmean(values)}")
    earlier = record.data.get("earlier_baselines")
    groups = _groups(earlier if earlier is not None else [])
    if groups is None:
        yield broken("baseline", "earlier_baselines is not a list of lists of scores")
        return
    low, high = BPB_BAND
    beyond = next((value for group in groups for value in group if not low < value < high), None)
    if beyond is not None:
        yield broken("baseline", f"earlier_baselines holds {beyond:g}; expected bits per byte from {low:g} to {high:g}")
    sigma = stats.pooled_sigma([*groups, values], case.task.sigma_prior_bpb)
    if same(case.state.sigma_bpb, sigma):
        return
    if earlier is None:
        yield unknown("baseline", "sigma was pooled with earlier sessions that this journal does not name")
    else:
        yield broken("baseline", f"sigma is {case.state.sigma_bpb}, its baselines give {sigma}")


def check_gain(case: Case) -> Iterator[Finding]:
    """The confirmed gain from its runs, those of the stock script all ok: a session ends where one is not."""
    state, planned = case.state, case.opening.num_confirm
    if state.gain is None:
        if state.closed:
            yield broken("confirmation", "the session closed without one")
        return
    if not len(state.confirm_baseline) == len(state.confirm_candidate) == planned:
        yield broken("confirmation", f"not all of its {planned} pairs were run")
        return
    for index, run in enumerate(state.confirm_baseline):
        if run.status is not Status.OK:
            yield broken("confirmation", f"the stock script failed in pair {index + 1}: there is no gain over it")
    derived = stats.confirmed_gain(state.confirm_baseline, state.confirm_candidate)
    for name in Gain.__dataclass_fields__:
        if not same(getattr(state.gain, name), getattr(derived, name)):
            yield broken(
                "confirmation", f"{name} is {getattr(state.gain, name)}, its runs give {getattr(derived, name)}"
            )


def same(claimed: Any, derived: Any) -> bool:
    """Equal up to the last digits of a float."""
    if isinstance(claimed, tuple) and isinstance(derived, tuple):
        return len(claimed) == len(derived) and all(map(same, claimed, derived))
    if isinstance(claimed, float) and isinstance(derived, float):
        return math.isclose(claimed, derived, rel_tol=ROUNDING, abs_tol=1e-12)
    return bool(claimed == derived)


def _groups(value: Any) -> list[list[float]] | None:
    if not isinstance(value, list) or not all(isinstance(group, list) for group in value):
        return None
    groups: list[list[float]] = value
    fine = all(isinstance(item, float) and 0 < item < math.inf for group in groups for item in group)
    return groups if fine else None


def _sha256(source: str) -> str:
    try:
        return hashlib.sha256(source.encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise JournalError(f"a text in the opening record is no UTF-8 ({error.reason})") from error


Check = Callable[[Case], Iterator[Finding]]
CHECKS: Sequence[tuple[str, Check]] = (
    ("hashes and key", check_opening),
    ("nonce and its commitment", check_nonce),
    ("order of records", check_order),
    ("seeds", check_seeds),
    ("calibration and budget", check_calibration),
    ("runs and audits", check_runs),
    ("baseline and sigma", check_baseline),
    ("edits and decisions", check_decisions),
    ("proposals of controls", check_controls),
    ("git history", check_history),
    ("confirmed gain", check_gain),
    ("possible figures", check_figures),
    ("plausibility", check_plausibility),
)
