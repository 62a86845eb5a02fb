"""The arithmetic of single runs: budget, times, audit, and that a number is there exactly where the run was ok."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from harness import rate
from harness.bench import FEEDBACK_DECIMALS
from harness.drift import excess_drift, max_repeats
from harness.metering import integrate
from harness.records import STOCK_ROLES, Calibration, Metered, Role, RunResult, Status, StockTimes
from leaderboard.case import Case, Finding, Run, broken

# Of trainer/trusted/audit.py, which decides; here it is only checked that the published figures fit the decision.
MAX_LEAK_NATS = 0.001
MAX_LARGE_SHARE, MIN_LARGE_ALLOWED = Fraction(1, 200), 3  # fractions: a bundle may hold any integer
BUDGET_ROUNDING = 1e-9  # relative
CLOCK_SLACK_SECONDS = 1e-3
METER_ROUNDING = 1e-6  # relative
METER_SLACK = 0.02  # of the budget: a burst can find that it was used up a moment ago


def check_runs(case: Case) -> Iterator[Finding]:
    """Each run's arithmetic: budget, times, and that a number is there exactly where the run was ok."""
    for run in case.finished:
        assert run.result is not None
        yield from (broken(run.identity.run_id, what) for what in _run_problems(case, run, run.result))
    yield from _check_repeats(case)


def _run_problems(case: Case, run: Run, result: RunResult) -> Iterator[str]:
    if result.split != run.identity.split:
        yield f"scored on {result.split!r}, announced for {run.identity.split!r}"
    if (result.bpb is not None) != (result.status is Status.OK):
        yield f"status {result.status} with bpb {result.bpb}"
    if result.bpb is not None and not 0 < result.bpb < math.inf:
        yield f"bpb {result.bpb} is no score"
    if result.bpb is not None and result.split == "val" and result.bpb != round(result.bpb, FEEDBACK_DECIMALS):
        yield f"bpb {result.bpb} on val has more than {FEEDBACK_DECIMALS} decimals"
    if result.status is Status.OK and not (result.num_snapshots > 0 and result.snapshot_bytes):
        yield "ok without a snapshot"
    if result.status is Status.OK:
        yield from audit_problems(result, case.task.audit_cuts)
        yield from _first_answer_problems(case, run, result)
    yield from _budget_problems(case, result)
    known = [result.setup_seconds, result.train_seconds, result.eval_seconds]
    parts = math.fsum(seconds for seconds in known if seconds is not None)
    if result.wall_seconds is not None and parts > result.wall_seconds + CLOCK_SLACK_SECONDS:
        yield f"its parts took {parts:.3f} s, the whole {result.wall_seconds:.3f} s"


def _budget_problems(case: Case, result: RunResult) -> Iterator[str]:
    made = case.state.calibration
    if (case.task.clock == "metered") != (result.metered is not None) and result.budget_seconds is not None:
        yield f"metered, with task.clock={case.task.clock}" if result.metered else "no record of the metered clock"
    ticking = case.task.clock == "ticks"
    if ticking and result.budget_seconds is not None:
        yield "a budget in seconds on the step clock"
    if result.status is Status.OK and not ticking and None in _times(result):
        yield "ok without its budget, setup or training time"
    if made is None or ticking or result.budget_seconds is None or result.setup_seconds is None:
        return
    spent = result.setup_seconds, rate.SETUP_FACTOR * made.setup_seconds
    free_work = rate.free_setup_work(made, case.task.slope_bpb_per_percent, case.task.sigma_prior_bpb)
    if made.setup_work_seconds is not None and result.setup_work_seconds is None:
        yield "no figure of what its setup worked, which the calibration has"
    overrun = rate.setup_overrun(spent, (result.setup_work_seconds, free_work))
    due = max(0.0, made.budget_seconds - overrun)
    if not math.isclose(result.budget_seconds, due, rel_tol=BUDGET_ROUNDING, abs_tol=CLOCK_SLACK_SECONDS):
        yield f"its budget was {result.budget_seconds:.3f} s, due were {due:.3f} s"
    if result.metered is not None:
        yield from _meter_problems(case, made, result, result.metered)
    elif result.train_seconds is not None and result.train_seconds > result.budget_seconds + CLOCK_SLACK_SECONDS:
        yield f"trained {result.train_seconds:.3f} s with a budget of {result.budget_seconds:.3f} s"


def _first_answer_problems(case: Case, run: Run, result: RunResult) -> Iterator[str]:
    made, stock = case.state.calibration, StockTimes.of(case.state.baseline)
    task, first = case.task, stock.first_answer_seconds
    limit = rate.first_answer_limit(made, task.slope_bpb_per_percent, task.sigma_prior_bpb, first)
    if limit is None or run.identity.role in STOCK_ROLES:
        return
    if result.first_answer_seconds is None:
        yield "ok without the time of its first answer, which the stock model's runs have"
    elif result.first_answer_seconds > limit:
        seconds = result.first_answer_seconds
        yield f"ok although it computed {seconds:.3f} s before its first answer, at most {limit:.3f} s"


def _times(result: RunResult) -> tuple[float | None, ...]:
    """What every run that came to a score has, for its clock ran."""
    return result.budget_seconds, result.setup_seconds, result.train_seconds


def _meter_problems(case: Case, made: Calibration, result: RunResult, metered: Metered) -> Iterator[str]:
    """The integral again, from its bursts."""
    if made.pattern is None or not metered.bursts or result.budget_seconds is None or result.train_seconds is None:
        yield "a metered run without a pattern, bursts or times"
        return
    rates = [burst.tokens_per_second for burst in metered.bursts]
    times = [burst.at_seconds for burst in metered.bursts]
    if min(rates) <= 0 or times[0] != 0 or any(after <= before for before, after in pairwise(times)):
        yield "its bursts are not in order, or one measured nothing"
        return
    due = case.task.reference_tokens * result.budget_seconds / made.budget_seconds
    used = integrate(metered.bursts, made.pattern.stock_per_burst, result.train_seconds)
    correction = used / (made.tokens_per_second * result.train_seconds) if result.train_seconds else 1.0
    for name, claimed, derived in (
        ("budget_tokens", metered.budget_tokens, due),
        ("used_tokens", metered.used_tokens, used),
        ("correction", metered.correction, correction),
    ):
        if not math.isclose(claimed, derived, rel_tol=METER_ROUNDING):
            yield f"{name} is {claimed}, its bursts give {derived}"
    if used > due * (1 + METER_SLACK):
        yield f"used {used:,.0f} tokens of a budget of {due:,.0f}"


def _check_repeats(case: Case) -> Iterator[Finding]:
    """A run is repeated, once, exactly where the device's speed had changed too much around it, up to a limit."""
    left = max_repeats(case.opening.num_baseline, case.session.experiments, case.opening.num_confirm)
    done: set[tuple[Role, int]] = set()
    for run in case.runs:
        which = (run.identity.role, run.identity.index)
        final = which in done or left <= 0
        yield from (broken(run.identity.run_id, what) for what in _drift_problems(case, run, final))
        if run.drifted is not None:
            done.add(which)
            left -= 1


def _drift_problems(case: Case, run: Run, final: bool) -> Iterator[str]:
    made, result = case.state.calibration, run.drifted or run.result
    if made is None or result is None or result.status not in (Status.OK, Status.TIMEOUT):
        return
    if case.task.clock == "wall" and made.sentinel is not None and len(result.sentinel) != 2:
        yield "the device's speed just before and just after it is missing"
        return
    task = case.task
    beyond = excess_drift(made, result.sentinel, task.slope_bpb_per_percent, task.sigma_prior_bpb) is not None
    if run.drifted is not None and (not beyond or final):
        yield "was repeated once too often" if beyond else "was repeated although the device's speed had not changed"
    if run.drifted is None and beyond and not final:
        yield "was not repeated although the device's speed had changed"


def audit_problems(result: RunResult, cuts: int) -> Iterator[str]:
    """What in the audit of an ok run does not fit a task that asks for `cuts`."""
    audit = result.audit
    if audit is None:
        yield "ok without an audit"
        return
    if not audit.lower_nats <= audit.mean_nats <= audit.upper_nats:
        yield "the audit's bounds do not hold its mean"
    if audit.lower_nats > MAX_LEAK_NATS:
        yield f"ok with a leak of {audit.lower_nats} nats"
    if audit.upper_nats < -MAX_LEAK_NATS:
        yield f"ok, and better by {-audit.upper_nats} nats when asked again"
    large = (audit.num_large_uniform, audit.num_large_positive, audit.num_large_negative)
    num_cuts = audit.num_uniform + audit.num_targeted
    fit = large[0] <= audit.num_uniform and large[1] + large[2] <= audit.num_targeted
    if min(*large, audit.num_uniform, audit.num_targeted) < 0 or not fit:
        yield f"impossible counts in the audit: {large} of {audit.num_uniform} and {audit.num_targeted}"
    elif audit.num_targeted != cuts // 2 or num_cuts < cuts:
        yield f"audited at {audit.num_uniform} and {audit.num_targeted} cuts, the task asks for {cuts}"
    elif sum(large) > MIN_LARGE_ALLOWED and Fraction(sum(large), num_cuts) > MAX_LARGE_SHARE:
        yield f"ok although {sum(large)} of {num_cuts} tokens were answered otherwise when asked again"
