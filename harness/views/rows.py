"""What every view shows, worked out once: pure functions of the session's state."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from harness.records import ActiveRun, Attempt, Calibration, Experiment, Gain, Role, RunResult, SessionState, Status
from harness.views import text

UNCALIBRATED = (
    "too noisy for the task's gate, so the session cannot be ranked: stop it, move its folder away and begin again"
)
_EXPECTED_RERUNS = 0.4  # share of experiments that earn a second run; until the session shows its own


@dataclass(frozen=True)
class Row:
    """One line of the history table. All strings are clean."""

    number: str
    hypothesis: str
    val_bpb: str
    delta_sigma: str
    status: str
    kept: bool | None
    reason: str


def names(state: SessionState) -> dict[str, str]:
    """Task, agent, data, device, clock and budget, as far as the state knows them."""
    return {
        "task": _config_name(state.config, "task"),
        "agent": researcher(state),
        "data": _config_name(state.config, "data"),
        "device": device_name(state.opened.get("device")),
        "budget": text.duration(budget_seconds(state)),
    }


def researcher(state: SessionState) -> str:
    """The agent, with its language model where it has one."""
    agent, llm = _config_name(state.config, "agent"), _config_name(state.config, "llm")
    return agent if llm in ("-", "none") else f"{agent} ({llm})"


def device_name(device: Any, max_chars: int = 60) -> str:
    """The device's own words for itself; whatever it is, one short clean line."""
    if isinstance(device, dict):
        model = next((value for key, value in device.items() if key == "model" or key.endswith("_model")), None)
        threads = device.get("threads")
        parts = [
            device.get("name"),
            model,
            text.count(threads, "thread") if isinstance(threads, int) else None,
            device.get("dtype"),
        ]
        device = ", ".join(str(part) for part in parts if part)
    return text.line(str(device or "-"), max_chars)


def budget_seconds(state: SessionState) -> float | None:
    return state.calibration.budget_seconds if state.calibration else None


def calibration_line(made: Calibration) -> str:
    """Rate, budget and clock in one line."""
    line = f"{made.tokens_per_second:,.0f} tokens/s, budget {text.duration(made.budget_seconds)}"
    if made.pattern:
        line += f", metered every {made.pattern.interval_seconds:.1f} s"
    return line if made.calibrated else f"{line}; {UNCALIBRATED}"


def num_experiments(state: SessionState) -> int:
    session = state.config.get("session")
    planned = session.get("experiments") if isinstance(session, dict) else None
    return planned if isinstance(planned, int) else len(state.experiments)


def max_hours(state: SessionState) -> float | None:
    """The limit of a session that counts hours instead of experiments; None: it counts experiments."""
    session = state.config.get("session")
    if not isinstance(session, dict) or session.get("experiments", 0) is not None:
        return None
    hours = session.get("max_hours")
    return float(hours) if isinstance(hours, int | float) else None


def experiment_name(state: SessionState, number: int) -> str:
    """`experiment 2 of 6`, or `experiment 2` where nobody counts."""
    return f"experiment {number}" + ("" if max_hours(state) else f" of {num_experiments(state)}")


def planned(state: SessionState, name: str) -> int:
    """`num_baseline` or `num_confirm` of the opening record."""
    value = state.opened.get(name)
    return value if isinstance(value, int) else 0


def experiment_row(experiment: Experiment) -> Row:
    status = experiment.status
    shown = "running" if status is None else status.value
    if experiment.kept is None and experiment.run and experiment.run.status is Status.OK:
        shown = "deciding" if experiment.rerun else "rerun"
    value = experiment.val_bpb
    if value is None and experiment.run and experiment.kept is None:
        value = experiment.run.bpb
    return Row(
        number=str(experiment.index + 1),
        hypothesis=text.line(experiment.hypothesis),
        val_bpb=text.bpb(value),
        delta_sigma=text.sigmas(experiment.delta_sigma),
        status=shown,
        kept=experiment.kept,
        reason=text.line(experiment.reason or ""),
    )


def baseline_row(state: SessionState) -> Row:
    total = max(planned(state, "num_baseline"), len(state.baseline))
    done = len(state.baseline)
    finished = state.baseline_bpb is not None
    sigma = f", sigma {text.bpb(state.sigma_bpb)}" if finished else ""
    return Row(
        number="base",
        hypothesis=f"unmodified train.py, {total if finished else f'{done} of {total}'} seeds{sigma}",
        val_bpb=text.bpb(state.baseline_bpb),
        delta_sigma="-",
        status="ok" if finished else "running",
        kept=None,
        reason="",
    )


def phase(state: SessionState) -> str:
    """Where the session stands, in words."""
    if state.closed:
        return "finished"
    if state.active:
        return run_name(state, state.active)
    if state.proposing is not None:
        return f"{experiment_name(state, state.proposing + 1)}: the researcher is thinking"
    if state.opened_at is None:
        return "preparing"
    if state.gain:
        return "writing the results"
    return "between runs" if state.calibration or state.baseline else "calibrating the device"


def run_name(state: SessionState, run: ActiveRun) -> str:
    """What a run is for, in words: `experiment 2 of 6`."""
    number = run.index + 1
    if run.role is Role.BASELINE:
        return f"baseline, seed {number} of {max(planned(state, 'num_baseline'), number)}"
    if run.role is Role.EXPERIMENT:
        return experiment_name(state, number)
    if run.role is Role.RERUN:
        return f"{experiment_name(state, number)}, second run with a fresh seed"
    which = "baseline" if run.role is Role.CONFIRM_BASELINE else "candidate"
    return f"confirmation, pair {number} of {max(planned(state, 'num_confirm'), number)}, {which}"


def finished_runs(state: SessionState) -> list[RunResult]:
    """Every run that the journal holds, refused edits excepted."""
    runs = [*state.baseline, *state.confirm_baseline, *state.confirm_candidate]
    for experiment in state.experiments:
        runs += [run for run in (experiment.run, experiment.rerun) if run and run.code not in ("edit", "no_proposal")]
    return runs


def runs_left(state: SessionState) -> float:
    """Expected number of runs until the session ends, the active one included."""
    if state.closed or state.gain:
        return 0.0
    decided = sum(item.kept is not None for item in state.experiments)
    reruns = sum(item.rerun is not None for item in state.experiments)
    rate = (reruns + _EXPECTED_RERUNS) / (decided + 1)
    experiments = 0 if state.stopped_early or state.confirm_baseline else num_experiments(state) - decided
    until_then = 0.0 if state.stopped_early or state.confirm_baseline else _runs_in_hours(state)
    confirm = 2 * planned(state, "num_confirm") - len(state.confirm_baseline) - len(state.confirm_candidate)
    baseline = 0 if state.baseline_bpb is not None else planned(state, "num_baseline") - len(state.baseline)
    return max(0, baseline) + max(0, experiments) * (1 + rate) + until_then + max(0, confirm)


def _runs_in_hours(state: SessionState) -> float:
    """The runs that still fit into the hours of a session that counts no experiments."""
    hours, mean = max_hours(state), _mean_run_seconds(state)
    if hours is None or not mean:
        return 0.0
    return max(0.0, 3600 * hours - state.working_seconds) / mean


def _mean_run_seconds(state: SessionState) -> float | None:
    walls = [run.wall_seconds for run in finished_runs(state) if run.wall_seconds is not None]
    return sum(walls) / len(walls) if walls else None


def seconds_left(state: SessionState, now: float) -> float | None:
    """Estimated seconds until the session ends, at UTC time `now`; None before the first run ended."""
    mean = _mean_run_seconds(state)
    if mean is None or state.last_at is None:
        return None
    running = min(max(0.0, now - state.last_at), mean) if state.active else 0.0
    return max(0.0, runs_left(state) * mean - running)


def session_fraction(state: SessionState) -> float:
    """Share of the session's expected runs that is done."""
    done = len(finished_runs(state))
    left = runs_left(state)
    return done / (done + left) if done + left else 0.0


def verdict(state: SessionState) -> str:
    """The confirmed result in plain words."""
    if not state.unchanged:
        return gain_sentence(state.gain)
    return gain_sentence(state.gain, "What was kept changes nothing" if state.incumbent else "No experiment was kept")


def tone(state: SessionState) -> str:
    """`gain` or `loss` where one is confirmed, else `open`: the baseline has neither against itself."""
    gain = state.gain
    if gain is None or gain.low_bpb is None or gain.high_bpb is None or state.unchanged:
        return "open"
    return "gain" if gain.low_bpb > 0 else "loss" if gain.high_bpb < 0 else "open"


def gain_sentence(gain: Gain | None, unchanged: str = "") -> str:
    """`gain` in plain words. `unchanged`: why the candidate was the stock script again."""
    if gain is None:
        return "Not confirmed yet."
    if gain.mean_bpb is None or gain.low_bpb is None or gain.high_bpb is None:
        failed = sum(value is None for value in gain.candidate_bpb)
        why = (
            f"the candidate failed in {failed} of {len(gain.candidate_bpb)} runs"
            if failed
            else "too few runs ended well"
        )
        return f"No confirmed gain: {why}, so there is no interval."
    pairs = f"{gain.num_pairs} pairs of fresh seeds on test"
    interval = f"95 % interval {text.bpb(gain.low_bpb, sign=True)} to {text.bpb(gain.high_bpb, sign=True)}"
    mean = text.bpb(gain.mean_bpb, sign=True)
    if unchanged:
        return f"{unchanged}; baseline against itself: {mean} bpb ({interval}; {pairs})."
    if gain.low_bpb > 0:
        return f"Confirmed gain: {mean} bpb ({interval}; {pairs})."
    if gain.high_bpb < 0:
        return f"Confirmed loss: {mean} bpb ({interval}; {pairs}): the candidate is worse than the baseline."
    return f"No confirmed gain: {mean} bpb, but the interval holds 0 ({interval}; {pairs})."


def walls_sentence(state: SessionState) -> str | None:
    """What was around agent code; None: an older journal, which does not say."""
    walls = state.walls
    if walls is None:
        return None
    where = f"Isolation level {walls.level} ({text.line(walls.name, 40)})"
    held = sum(value == "held" for value in walls.canaries.values())
    others = [text.line(f"{name} {value}", 60) for name, value in walls.canaries.items() if value != "held"]
    if not held:
        return f"{where}: no wall was tried."
    exceptions = f"; {', '.join(others)}" if others else ""
    return f"{where}: {held} of {len(walls.canaries)} walls held{exceptions}."


def integrity_sentence(state: SessionState) -> str | None:
    """How much was attempted and stopped; None: nothing that could be seen."""
    if not state.attempts:
        return None
    counts = Counter(attempt.family for attempt in state.attempts)
    families = ", ".join(f"{count} {text.line(family, 40)}" for family, count in sorted(counts.items()))
    attempts = text.count(len(state.attempts), "attempt")
    return f"Integrity: {attempts} stopped ({families}); evidence, not a judgement."


def attempt_line(attempt: Attempt) -> str:
    """One attempt as a clean line."""
    return text.line(f"{attempt.family} in {attempt.run_id}: {attempt.evidence}")


def _config_name(config: dict[str, Any], group: str) -> str:
    value = config.get(group)
    name = value.get("name") if isinstance(value, dict) else value
    return text.line(str(name or "-"), 40)


def finished_run(state: SessionState, run: ActiveRun) -> RunResult:
    """The result of a run that has just finished.

    Raises:
        LookupError: it has not.
    """
    if run.role is Role.BASELINE:
        return state.baseline[run.index]
    if run.role is Role.CONFIRM_BASELINE:
        return state.confirm_baseline[run.index]
    if run.role is Role.CONFIRM_CANDIDATE:
        return state.confirm_candidate[run.index]
    experiment = state.experiments[run.index]
    result = experiment.rerun if run.role is Role.RERUN else experiment.run
    if result is None:
        raise LookupError(run.run_id)
    return result
