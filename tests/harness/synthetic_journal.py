"""Invented sessions for the tests of the journal's readers. Test data only: no figure here was measured."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.codec import to_json
from harness.journal import Journal, Record
from harness.records import Audit, Calibration, CurvePoint, Gain, RunResult, Status, Usage

STOCK = "\n".join(
    ["DEPTH = 4", "WIDTH = 128", "MUON_LR = 0.02", "WARMDOWN = 0.5", ""]
    + [f"def layer_{i}(x):\n    return x * WIDTH + {i}\n" for i in range(40)]
)
HYPOTHESES = (
    "Raise the Muon learning rate from 0.02 to 0.03: the run is short and the loss still falls at the end",
    "Deeper and narrower: 6 layers of 96",
    "Untie the embeddings and give the head its own learning rate",
    "Warm down over the last 70 % of the budget instead of 50 %",
    "Import flash attention for the CPU",
    "A short convolution before attention",
)
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "[red]markup[/red] [link=https://example.org]x[/link] [/]",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred \x9b31m",
    "\u202eevil\u2066 zero\u200bwidth \ud800 surrogate z" + "\u0301" * 50,
    "x" * 1_000_000,
    "{{ 7 * 7 }} {% raw %} $\\frac{1}$ ]]> --> </style>",
)
NUM_BASELINE, NUM_CONFIRM = 3, 3


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


def curve(final: float, seconds: float, rng: random.Random) -> tuple[CurvePoint, ...]:
    points = []
    for step in range(60):
        share = step / 59
        loss = final + (7.0 - final) * math.exp(-6 * share) + rng.gauss(0, 0.04)
        points.append(CurvePoint(round(share * seconds, 3), step * 10, loss, step * 20_480))
    return tuple(points)


def ok(bpb: float, rng: random.Random, split: str = "val") -> RunResult:
    return RunResult(
        status=Status.OK,
        split=split,
        bpb=round(bpb, 4),
        audit=Audit(128, 0.0, -0.0001, 0.0001, 0, 128, 0, 0),
        budget_seconds=12.0,
        train_seconds=12.01,
        setup_seconds=1.4,
        eval_seconds=2.2,
        wall_seconds=17.1,
        peak_memory_bytes=712_000_000,
        num_snapshots=3,
        snapshot_bytes=4_100_000,
        curve=curve(bpb * 2.4, 12.0, rng),
        log_tail="step 570  loss 4.1\nstep 580  loss 4.0\nsaved 4.1 MB\n",
    )


def failed(status: Status, reason: str, log: str = "") -> RunResult:
    return RunResult(status=status, split="val", reason=reason, code="forward", wall_seconds=4.0, log_tail=log)


def events(num: int = 6, hostile: bool = False, keep: bool = True) -> Iterator[tuple[str, dict[str, Any], float]]:
    """(type, data, seconds that pass before it) of a whole session."""
    rng = random.Random(7)
    names = {"task": "demo", "agent": "tpe", "data": "pypi"}
    config = {group: {"name": name} for group, name in names.items()}
    yield (
        "session_open",
        {
            "config": {**config, "session": {"experiments": num, "seed": 0}},
            "key": {"task": "demo", "protocol": 1, "stock_sha256": "1" * 64},
            "device": {"name": "cpu", "cpu_model": "Example CPU 3000", "threads": 2, "dtype": "bfloat16"},
            "versions": {"torch": "2.13.0"},
            "nonce_sha256": "0" * 64,
            "stock_sha256": "1" * 64,
            "stock_source": STOCK,
            "data": {"data_sha256": "2" * 64},
            "unranked": ["no isolation on this device"],
            "num_baseline": NUM_BASELINE,
            "num_confirm": NUM_CONFIRM,
        },
        0.0,
    )
    rate = Calibration(91_000.0, 90_100.0, 91_800.0, (91_000.0, 90_500.0, 91_600.0), 1.5, 12.0, 0.0004, True)
    yield "calibration", to_json(rate), 20.0
    base = [2.012, 2.018, 2.009]
    for seed, value in enumerate(base):
        yield from run("baseline", seed, ok(value, rng))
    yield "baseline", {"baseline_bpb": 2.013, "sigma_bpb": 0.005}, 0.0
    yield from experiments(num, hostile, keep, rng)
    confirm_base, confirm_best = [2.021, 2.017, 2.025], ([1.977, 1.969, 1.984] if keep else [2.022, 2.015, 2.026])
    for pair in range(NUM_CONFIRM):
        yield from run("confirm_baseline", pair, ok(confirm_base[pair], rng, "test"))
        yield from run("confirm_candidate", pair, ok(confirm_best[pair], rng, "test"))
    mean = sum(a - b for a, b in zip(confirm_base, confirm_best, strict=True)) / NUM_CONFIRM
    gain = Gain(NUM_CONFIRM, mean, mean - 0.006, mean + 0.006, tuple(confirm_base), tuple(confirm_best))
    yield "confirmed", to_json(gain), 0.1
    yield "closed", {"nonce": "3" * 32}, 0.1


def run(role: str, index: int, result: RunResult) -> Iterator[tuple[str, dict[str, Any], float]]:
    name = {"run_id": f"{role}-{index}", "role": role, "index": index, "seed": 100 + index, "split": result.split}
    yield "run_started", name, 0.05
    yield "run_finished", {**name, "result": to_json(result)}, result.wall_seconds or 0.0


def experiments(num: int, hostile: bool, keep: bool, rng: random.Random) -> Iterator[tuple[str, dict[str, Any], float]]:
    best, source = 2.013, STOCK
    for index in range(num):
        words = HOSTILE[index % len(HOSTILE)] if hostile else HYPOTHESES[index % len(HYPOTHESES)]
        yield "proposal_started", {"index": index}, 0.0
        kind = index % 6
        refused = words if hostile and kind == 4 else "train.py line 12: invalid syntax" if kind == 4 else None
        changed = source.replace("WIDTH = 128", f"WIDTH = {128 + 8 * index}") + f"\n# {words}\n"
        proposal = {
            "index": index,
            "hypothesis": words,
            "note": words if hostile else "from the history",
            "usage": to_json(Usage(1200, 300, 0.01, 4.0)),
            "edit": {"source": None, "blocks": [["a < b", "import flash_attn"]], "path": "train.py"},
            "source": None if refused else changed,
            "refused": refused,
        }
        yield "proposal", proposal, 0.4
        if refused:
            yield "decision", decision(index, False, None, None), 0.0
            continue
        if kind == 2:
            log = (
                words
                if hostile
                else "Traceback (most recent call last):\n  File train.py, line 40\nRuntimeError: shape"
            )
            crash = failed(Status.CRASH, words if hostile else "RuntimeError: shape '[8, 64]' is invalid", log)
            yield from run("experiment", index, crash)
            yield "decision", decision(index, False, None, None), 0.0
            continue
        better = kind in (0, 3) and keep
        value = best - 0.02 if better else best + 0.011
        yield from run("experiment", index, ok(value, rng))
        if better:
            value += 0.002
            yield from run("rerun", index, ok(value, rng))
        yield "decision", decision(index, better, round(value, 4), (best - value) / 0.005), 0.0
        if better:
            best, source = value, changed


def decision(index: int, kept: bool, value: float | None, delta: float | None) -> dict[str, Any]:
    return {"index": index, "kept": kept, "val_bpb": value, "delta_sigma": delta, "commit": f"{index:040x}"}


def write(path: Path, stop_after: int | None = None, **options: Any) -> list[Record]:
    """Write the session (or its first `stop_after` records) to `path`; returns the records."""
    clock = Clock()
    written = []
    with Journal.create(path, clock) as journal:
        for number, (kind, data, seconds) in enumerate(events(**options)):
            if number == stop_after:
                break
            clock.now += seconds
            written.append(journal.append(kind, **data))
    return written
