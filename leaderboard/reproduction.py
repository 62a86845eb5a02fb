"""One reproduction: the winner and the stock script retrained here in turns, journaled, resumable at any line.

Its journal has the form of a session's (harness/journal.py) and records of its own: `reproduction_open`,
`calibration`, `run_started`, `run_finished`, `run_drifted` (it is made again), `resumed`, `extended` (more pairs were
asked for), `verdict`. Whenever it begins or goes on it says under what: the walls, as they were tried from inside, and
the configuration of task and backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness import seeds
from harness.codec import part_from_json, to_json
from harness.config import TASK_WORDS, TaskConfig
from harness.drift import run_drift
from harness.errors import HarnessError
from harness.journal import Journal, Record
from harness.protocols import Bench
from harness.records import Calibration, Gain, Role, RunResult, Status, StockTimes, Walls
from harness.views import text
from leaderboard.verdict import Verdict, differences, judge

Say = Callable[[str], None]
_NAMES = {Role.CONFIRM_BASELINE: "baseline", Role.CONFIRM_CANDIDATE: "winner"}


@dataclass(frozen=True)
class Subject:
    """What is reproduced: taken from a bundle that was found consistent."""

    stock_source: str
    winner_source: str
    claim: Gain
    session_seed: int

    @property
    def unchanged(self) -> bool:
        return self.winner_source == self.stock_source


@dataclass(frozen=True)
class _Finished:
    role: Role
    index: int
    result: RunResult


@dataclass(frozen=True)
class _Verdict:
    verdict: Verdict


@dataclass(frozen=True)
class State:
    """What the journal of a reproduction says."""

    num_pairs: int
    nonce: str
    calibration: Calibration | None
    baseline: tuple[RunResult, ...]
    winner: tuple[RunResult, ...]
    drifted: frozenset[tuple[Role, int]]  # runs that are made twice, for the device was not as it was calibrated
    verdicts: tuple[Verdict, ...]

    @property
    def verdict(self) -> Verdict | None:
        """The last one, if every pair that was asked for is in it."""
        last = self.verdicts[-1] if self.verdicts else None
        return last if last and last.num_pairs >= self.num_pairs else None


def fold(records: Sequence[Record]) -> State:
    """Raises JournalError."""
    opened = records[0].data
    num_pairs, calibration = int(opened["num_pairs"]), None
    runs: dict[Role, list[RunResult]] = {role: [] for role in _NAMES}
    verdicts = []
    drifted: set[tuple[Role, int]] = set()
    for record in records:
        if record.type == "calibration":
            calibration = part_from_json(Calibration, record.data)
        elif record.type == "run_finished":
            done = part_from_json(_Finished, record.data)
            runs[done.role].append(done.result)
        elif record.type == "run_drifted":
            once = part_from_json(_Finished, record.data)
            drifted.add((once.role, once.index))
        elif record.type == "extended":
            num_pairs = int(record.data["num_pairs"])
        elif record.type == "verdict":
            verdicts.append(part_from_json(_Verdict, record.data).verdict)
    base, winner = (tuple(runs[role]) for role in _NAMES)
    return State(num_pairs, str(opened["nonce"]), calibration, base, winner, frozenset(drifted), tuple(verdicts))


def terms(task: TaskConfig, walls: Walls) -> dict[str, Any]:
    """What runs are made under, as records say it."""
    return {"walls": to_json(walls), "task": to_json(task)}


def other_numbers(own: Any, here: Any) -> list[str]:
    """The names of what differs between two recorded configurations of a task; words about it may."""
    one, other = (value if isinstance(value, dict) else {} for value in (own, here))
    return sorted(name for name in {*one, *other} - {*TASK_WORDS} if one.get(name) != other.get(name))


class Reproduction:
    """Does what is left of the reproduction in an open journal."""

    def __init__(
        self,
        subject: Subject,
        task: TaskConfig,
        journal: Journal,
        records: list[Record],
        bench: Bench,
        say: Say,
        *,
        walls: Walls,
    ) -> None:
        self.subject = subject
        self.task = task
        self.journal = journal
        self.records = records
        self._bench = bench
        self.say = say
        self.walls = walls

    @property
    def state(self) -> State:
        return fold(self.records)

    def run(self, num_pairs: int) -> Verdict:
        """Retrain until `num_pairs` pairs are done, and judge. Raises HarnessError."""
        if num_pairs > self.state.num_pairs:
            self._write("extended", num_pairs=num_pairs, **terms(self.task, self.walls))
        if (verdict := self.state.verdict) is not None:
            return verdict
        self._calibrate()
        for place in range(2 * self.state.num_pairs):
            self._measure(*seeds.confirmation_run(place))
        state = self.state
        values, failed = differences(state.baseline, state.winner)
        look, unchanged = len(state.verdicts) + 1, self.subject.unchanged
        verdict = judge(self.subject.claim, values, failed, look, unchanged=unchanged)
        self._write("verdict", verdict=to_json(verdict))
        return verdict

    def _calibrate(self) -> None:
        if self.state.calibration is not None or self.task.clock == "ticks":
            return
        self.say("calibrating this device with the stock script")
        seed = seeds.derive("calibration", self.task.name)
        made = self._bench.calibrate(self.subject.stock_source, seed, self.task.sigma_prior_bpb)
        self._write("calibration", **to_json(made))
        note = "" if made.calibrated else "; too noisy for the task's gate: not calibrated"
        self.say(f"{made.tokens_per_second:,.0f} tokens/s, budget {text.duration(made.budget_seconds)}{note}")

    def _measure(self, role: Role, index: int) -> None:
        state = self.state
        if index < len(state.baseline if role is Role.CONFIRM_BASELINE else state.winner):
            return
        stock = role is Role.CONFIRM_BASELINE
        source = self.subject.stock_source if stock else self.subject.winner_source
        seed = seeds.deal(self.task.name, self.subject.session_seed, role, index, state.nonce)
        identity: dict[str, Any] = {"run_id": f"{role}-{index:03d}", "role": role, "index": index, "seed": seed}
        self._write("run_started", **identity, split="test")
        bench = self._bench.knowing(state.calibration, StockTimes.of(state.baseline))
        result = bench.run(identity["run_id"], source, seed, "test", role)
        if stock and result.status is not Status.OK:
            # Says nothing of the winner: not recorded, so that a second attempt tries again.
            raise HarnessError(
                f"the stock train.py failed here ({result.status}: {result.reason}); see runs/{identity['run_id']}, "
                "then give the same command again"
            )
        drifted = run_drift(state.calibration, result, self.task.slope_bpb_per_percent, self.task.sigma_prior_bpb)
        if drifted is not None and (role, index) in state.drifted:
            self.say("the device is off its calibrated speed again; so this cannot be attested")
        elif drifted is not None:
            self._write("run_drifted", **identity, split="test", drift=drifted, result=to_json(result))
            self.say(f"the device was {100 * drifted:+.0f} % off its calibrated speed: once more")
            bench.cool_down()
            self._measure(role, index)
            return
        self._write("run_finished", **identity, split="test", result=to_json(result))
        shown = text.bpb(result.bpb) if result.bpb is not None else f"{result.status}: {text.line(result.reason or '')}"
        self.say(f"pair {index + 1} of {state.num_pairs}, {_NAMES[role]}: {shown}")

    def _write(self, kind: str, **data: Any) -> None:
        self.records.append(self.journal.append(kind, **data))
