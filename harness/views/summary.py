"""summary.json: the session in figures, every one recomputable from the journal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import ranking
from harness.codec import to_json
from harness.fold import fold
from harness.journal import read
from harness.records import Experiment, RunResult, SessionState
from harness.views import replayed, rows, text
from harness.views.files import write_view


def summary(state: SessionState) -> dict[str, Any]:
    """The figures of `state`, as JSON. Shares are of the time that the session worked; unknown is null."""
    runs = rows.finished_runs(state)
    best = state.incumbent
    config = state.config
    figures = {
        "names": rows.names(state),
        "key": state.opened.get("key"),
        "finished": state.closed,
        "ranked": state.closed and not unranked(state),
        "unranked": list(unranked(state)),
        "gain": state.gain,
        "verdict": rows.verdict(state),
        "baseline": {
            "bpb": state.baseline_bpb,
            "sigma_bpb": state.sigma_bpb,
            "bpb_per_seed": [run.bpb for run in state.baseline],
        },
        "best": None
        if best is None
        else {"experiment": best.index + 1, "val_bpb": best.val_bpb, "commit": best.commit},
        "experiments": {
            "planned": rows.num_experiments(state),
            "done": sum(item.kept is not None for item in state.experiments),
            "kept": sum(item.kept is True for item in state.experiments),
            "by_status": _count(state.experiments),
        },
        "calibration": state.calibration,
        "clock": {
            "correction": ranking.mean_correction(state),
            "burst_share": _burst_share(runs),
            "num_drifted": len(state.drifted),
        },
        "time": {
            "working_seconds": state.working_seconds,
            "budget_share": _share(state, (run.train_seconds for run in runs)),
            "evaluation_share": _share(state, (run.eval_seconds for run in runs)),
            "mean_run_seconds": _mean(run.wall_seconds for run in runs),
        },
        "researcher": _usage(state.experiments) if state.told is None else to_json(state.told),
        "llm": llm(state),
        "replay": replayed.figures(state),
        "num_runs": len(runs),
        "num_restarts": state.num_restarts,
        "incidents": [text.line(item) for item in state.incidents],
        "walls": state.walls,
        "integrity": {
            "count": len(state.attempts),
            "by_family": dict(Counter(item.family for item in state.attempts)),
            "attempts": [replace(item, evidence=text.line(item.evidence)) for item in state.attempts],
        },
        "stopped_early": None if state.stopped_early is None else text.line(state.stopped_early),
        "session_seed": config["session"].get("seed") if isinstance(config.get("session"), dict) else None,
        "versions": state.opened.get("versions"),
    }
    plain: dict[str, Any] = to_json(figures)
    return plain


def llm(state: SessionState) -> dict[str, Any] | None:
    """What was asked of a language model, every try counted; None where none was asked."""
    asked = state.llm
    if not asked.num_calls:
        return None
    return {
        "calls": asked.num_calls,
        "outcomes": dict(sorted(asked.outcomes.items())),
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": asked.completion_tokens,
        "cost_usd": asked.cost_usd,
        "seconds": asked.seconds,
    }


def stopped_sentence(state: SessionState) -> str | None:
    """Why the session ended before its last experiment, and whether its researcher or a limit ended it."""
    if not state.stopped_early:
        return None
    by_limit = state.stopped_early.startswith("session.max_")
    return f"{'Stopped by a limit' if by_limit else 'Stopped early'}: {text.line(state.stopped_early)}"


def llm_sentence(state: SessionState) -> str | None:
    asked = state.llm
    if not asked.num_calls:
        return None
    cost = "cost unknown" if asked.cost_usd is None else f"${text.fixed(asked.cost_usd, 4)}"
    failed = {name: count for name, count in sorted(asked.outcomes.items()) if name != "ok"}
    tries = f" ({', '.join(f'{count} {name}' for name, count in failed.items())})" if failed else ""
    return (
        f"The model was asked {text.count(asked.num_calls, 'time')}{tries}: {asked.prompt_tokens:,} tokens in, "
        f"{asked.completion_tokens:,} out, {cost}, {text.duration(asked.seconds)}."
    )


def _burst_share(runs: Iterable[RunResult]) -> float | None:
    """Share of the wall time between start and end of training that the metered clock took for itself."""
    metered = [run for run in runs if run.metered and run.train_seconds]
    stopped = sum(run.metered.stopped_seconds for run in metered if run.metered)
    running = sum(run.train_seconds for run in metered if run.train_seconds)
    return stopped / (stopped + running) if running else None


def unranked(state: SessionState) -> tuple[str, ...]:
    """What keeps the session off the leaderboard, one clean line each."""
    return tuple(text.line(reason) for reason in ranking.unranked(state))


def sentences(state: SessionState) -> list[str]:
    """The summary in plain words, one line each, for the end of a session."""
    figures = summary(state)
    done, kept = figures["experiments"]["done"], figures["experiments"]["kept"]
    lines = [rows.verdict(state)]
    if state.baseline_bpb is not None:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(figures["experiments"]["by_status"].items()))
        lines.append(
            f"Baseline {text.bpb(state.baseline_bpb)} val bpb (sigma {text.bpb(state.sigma_bpb)}); "
            f"{text.count(done, 'experiment')}, {kept} kept{f' ({counts})' if counts else ''}."
        )
    if again := replayed.sentence(state):
        lines.append(again)
    if asked := llm_sentence(state):
        lines.append(asked)
    if stopped := stopped_sentence(state):
        lines.append(stopped)
    times = figures["time"]
    if times["budget_share"] is not None:
        lines.append(
            f"{text.duration(state.working_seconds)} of work, {text.percent(times['budget_share'])} inside budgets, "
            f"{text.percent(times['evaluation_share'])} evaluating."
        )
    lines += [
        line for line in (audit_sentence(state), rows.walls_sentence(state), rows.integrity_sentence(state)) if line
    ]
    if reasons := unranked(state):
        lines.append("Not ranked: " + "; ".join(reasons) + ".")
    return lines


def audit_sentence(state: SessionState) -> str | None:
    """What the audits of the confirmation say of looking ahead: the largest of their bounds."""
    bounds = [run.audit.upper_nats for run in state.confirm_candidate if run.audit]
    if not bounds:
        return None
    bound = text.fixed(max(0.0, *bounds), 5)
    return f"Audited: without later tokens the candidate's answers lost at most {bound} nats a token (99.9 % bound)."


def write(session_dir: Path) -> Path:
    """Write `summary.json` into the session's folder; returns its path.

    Raises:
        JournalError: the journal is missing or damaged, or the file cannot be written.
    """
    records, _ = read(session_dir / "journal.jsonl")
    content = json.dumps(summary(fold(records)), indent=2, allow_nan=False) + "\n"
    return write_view(session_dir / "summary.json", content)


def _count(experiments: Iterable[Experiment]) -> dict[str, int]:
    return dict(Counter(item.status.value for item in experiments if item.status))


def _share(state: SessionState, seconds: Iterable[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) / state.working_seconds if known and state.working_seconds else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _usage(experiments: Iterable[Experiment]) -> dict[str, float | int | None]:
    usages = [item.usage for item in experiments if item.usage]
    totals: dict[str, float | int | None] = {}
    for name in ("prompt_tokens", "completion_tokens", "cost_usd", "seconds"):
        known = [value for usage in usages if (value := getattr(usage, name)) is not None]
        totals[name] = sum(known) if known else None
    return totals
