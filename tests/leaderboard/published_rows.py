"""Rows as they are published, without journals: what the rules of the board and its table are tried on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from harness.records import SessionState
from harness.turn import LLMTotals
from leaderboard import show_standings, standings
from leaderboard.bundle import Bundle
from leaderboard.outcome import Outcome
from leaderboard.published import Category, Collection, Published, Retrained, Tier
from leaderboard.verdict import Verdict, Word

BASE = Outcome(
    head="h", researcher="r", label="tpe", is_tpe=False, key={"task": "demo", "protocol": 2, "stock_sha256": "a" * 64},
    conditions={"experiments": 6}, session_seed=0, opened_at=0.0, device="here",
    device_label="cpu, Some Processor 9, 2 threads, bfloat16", closed=True, gain_bpb=0.02, confirmed=None,
    num_failed_pairs=0, unchanged=False, baseline_bpb=1.5, sigma_bpb=0.01, num_experiments=6, num_kept=2, failures={},
    diversity=0.5, stopped_early=None, num_restarts=0, num_attempts=0, walls=None, unranked=(), anytime=(),
)  # fmt: skip
LOST = Verdict(Word.NOT_REPRODUCED, "why", 0.1, 0.1, 0.1, 3, 0, 0.0, 0.0, 0.0, 0.95, None)
SPREAD = [0.001, -0.001, 0.0005, -0.0005, 0.0, 0.0002]


def sessions(
    label: str,
    gains: Sequence[float],
    tier: Tier = Tier.REPRODUCED,
    category: Category = Category.LLM,
    contested: int | None = None,
    cost_usd: float | None = 0.5,
) -> list[Published]:
    """Published sessions of one researcher; the one with the seed `contested` is."""
    made = []
    for seed, gain in enumerate(gains):
        item = replace(
            BASE, head=f"{label}{seed}", researcher=label, label=label, is_tpe=label == "tpe", session_seed=seed,
            gain_bpb=gain,
        )  # fmt: skip
        whole = Bundle((), SessionState(llm=LLMTotals(cost_usd=cost_usd)), "0" * 64)
        lost = contested == seed
        made.append(
            Published(
                name=f"{label}-s{seed}", bundle_sha256="0" * 64, bundle_bytes=1, url=None, submitted_by="Ann",
                link=None, submitted_on="2025-06-15", note="", bundle=whole, outcome=item, category=category,
                device_class="cpu", tier=tier, contested=lost,
                retrained=(Retrained("ann", "cpu", "here", 0.0, LOST),) if lost else (),
            )
        )  # fmt: skip
    return made


def collection(*groups: list[Published]) -> Collection:
    listed = tuple(item for group in groups for item in group)
    return Collection(Path("entries"), listed, standings.boards(listed))


BEST = sessions("llm best-model", [0.05 + x for x in SPREAD])
TPE = sessions("tpe", [0.02 + x for x in SPREAD], category=Category.CONTROL)
NEAR = sessions("llm near", [0.0201 + x for x in reversed(SPREAD)], Tier.CONSISTENT, cost_usd=None)


def shown(found: Collection, width: int = 80, encoding: str = "utf-8", **options: object) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show_standings.show(found, Console(file=file, width=width), **options)  # type: ignore[arg-type]
    file.seek(0)
    return file.read()


def row(table: str, label: str) -> str:
    return next(line for line in table.splitlines() if label in line)


def retrained(group: Sequence[Published], found: Sequence[float], device: str = "here") -> list[Published]:
    """Each session with a reproduction that passed and found so much."""
    return [
        replace(
            item,
            retrained=(
                Retrained(
                    "ann", "cpu", device, 0.0, replace(LOST, word=Word.REPRODUCED, mean_bpb=gain, num_pairs=3), False
                ),
            ),
        )
        for item, gain in zip(group, found, strict=True)
    ]
