"""Figures that no device and no model can have.

They change no score. But they are shown, added up and drawn, so a session that holds one is not consistent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leaderboard.case import Case, Finding, broken

MAX_COUNT = 2.0**60  # bytes, tokens, parameters: more than any device holds or any model reads
MAX_COST_USD = 1e9
MAX_SECONDS = 1e9  # thirty years
_MOST: Mapping[str, float] = {
    **dict.fromkeys(("peak_memory_bytes", "snapshot_bytes", "num_snapshots", "num_parameters"), MAX_COUNT),
    **dict.fromkeys(("prompt_tokens", "completion_tokens"), MAX_COUNT),
    "cost_usd": MAX_COST_USD,
    **dict.fromkeys(("setup_seconds", "setup_work_seconds", "train_seconds"), MAX_SECONDS),
    **dict.fromkeys(("eval_seconds", "first_answer_seconds", "wall_seconds", "seconds"), MAX_SECONDS),
}
_RECORDS = (
    "run_finished",
    "run_drifted",
    "smoke_finished",
    "proposal",
    "llm_call_started",
    "llm_call_finished",
    "researcher_spent",
)


def check_figures(case: Case) -> Iterator[Finding]:
    """Memory, times, tokens and costs, wherever the journal states them."""
    for record in case.records:
        if record.type not in _RECORDS:
            continue
        where = str(record.data.get("run_id", f"record {record.seq}"))
        for part in (record.data, record.data.get("result"), record.data.get("usage")):
            if isinstance(part, dict):
                yield from (broken(where, what) for what in impossible(part))


def impossible(figures: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the figures of one run, call or proposal, as the journal has them."""
    for name, most in _MOST.items():
        value = figures.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Infinities and NaN are texts in a journal.
        if value is not None and not (number and 0 <= value <= most):
            yield f"{name} is {str(value)[:40]}; expected a number from 0 to {most:g}"
