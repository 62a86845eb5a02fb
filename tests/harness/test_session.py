"""The rules of a session, on a bench whose scores are written down: keep, rerun, confirm, stop, refuse."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from harness.codec import to_json
from harness.config import Config, SessionConfig, TaskConfig
from harness.errors import HarnessError
from harness.integrity import Witness
from harness.journal import Journal, read
from harness.records import Calibration, Edit, Proposal, Role, RunResult, SessionState, Status, StockTimes, View
from harness.session import Session
from harness.workspace import Workspace

STOCK = """from trainer import lab

RATE = 1.0  # search: float(0.0, 9.0)


def build_model(task):
    return None


def main():
    run = lab.open()


if __name__ == "__main__":
    main()
"""


@dataclass
class WrittenBench:
    """Scores by role and index; 2.0 where nothing is written. A Status instead of a score is a failure."""

    scores: dict[tuple[Role, int], float | Status] = field(default_factory=dict)
    calls: list[tuple[Role, str, int, str]] = field(default_factory=list)

    def calibrate(self, stock_source: str, seed: int, sigma_bpb: float) -> Calibration:
        return Calibration(1000.0, 990.0, 1010.0, (1000.0,) * 8, 1.5, 10.0, 0.005, True)

    def knowing(self, calibration: Calibration | None, stock: StockTimes) -> WrittenBench:
        return self

    def run(self, run_id: str, source: str, seed: int, split: str, role: Role) -> RunResult:
        index = int(run_id.rpartition("-")[2])
        self.calls.append((role, source, seed, split))
        score = self.scores.get((role, index), 2.0)
        if isinstance(score, Status):
            return RunResult(score, split, reason="written down")
        return RunResult(Status.OK, split, bpb=score, eval_seconds=1.0)


@dataclass
class Script:
    """Proposes RATE = 2.0, 3.0, ...; then what is given."""

    proposals: list[Proposal | None] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    name: str = "script"

    def propose(self, view: View) -> Proposal | None:
        self.views.append(view)
        if view.index < len(self.proposals):
            return self.proposals[view.index]
        return rate(view.index + 2)


def rate(value: float) -> Proposal:
    return Proposal(f"rate {value}", Edit(source=STOCK.replace("RATE = 1.0", f"RATE = {float(value)}")))


def run(
    folder: Path,
    scores: dict[tuple[Role, int], float | Status],
    *,
    experiments: int | None = 3,
    proposals: Iterable[Proposal | None] = (),
    max_hours: float | None = None,
    clock: Callable[[], float] = time.time,
    witness: Witness | None = None,
    agent: Script | None = None,
) -> tuple[SessionState, WrittenBench, Script]:
    config = Config(
        task=TaskConfig(name="demo", sigma_prior_bpb=0.01, confirm_seeds=2),
        session=SessionConfig(experiments=experiments, max_hours=max_hours),
    )
    bench, agent = WrittenBench(scores), agent or Script(list(proposals))
    facts: dict[str, Any] = {
        "config": to_json(config),
        "stock_source": STOCK,
        "task_view": {},
        "device": {},
        "program": "",
    }
    with Journal.create(folder / "journal.jsonl", clock=clock) as journal:
        opened = journal.append("session_open", **facts, num_baseline=2, num_confirm=2, unranked=[])
        session = Session(
            config,
            journal,
            [opened],
            agent=agent,
            bench=bench,
            workspace=Workspace(folder / "workspace"),
            trackers=[],
            nonce="nonce",
            witness=witness,
        )
        return session.run(), bench, agent


def test_a_gain_must_be_drawn_twice(tmp_path: Path) -> None:
    scores = {
        (Role.EXPERIMENT, 0): 1.90,  # better, but the rerun is not: a lucky draw
        (Role.RERUN, 0): 2.01,
        (Role.EXPERIMENT, 1): 1.80,  # better twice: kept, with the second value
        (Role.RERUN, 1): 1.95,
        (Role.EXPERIMENT, 2): 1.96,  # better than the baseline, not than the incumbent: no rerun
    }
    state, bench, agent = run(tmp_path, scores)
    assert [item.kept for item in state.experiments] == [False, True, False]
    assert [item.val_bpb for item in state.experiments] == [2.01, 1.95, 1.96]
    sigma = state.sigma_bpb
    assert sigma is not None
    assert [item.delta_sigma for item in state.experiments] == pytest.approx(
        [(2.0 - 2.01) / sigma, (2.0 - 1.95) / sigma, (1.95 - 1.96) / sigma]
    )
    assert sum(role is Role.RERUN for role, *_ in bench.calls) == 2
    assert agent.views[2].incumbent_bpb == 1.95 and "RATE = 3.0" in agent.views[2].incumbent_source
    assert "RATE = 3.0" in (tmp_path / "workspace" / "train.py").read_text()


def test_a_session_of_hours_ends_when_they_are_over_and_confirms(tmp_path: Path) -> None:
    """As `session=overnight`: no number of experiments; what counts is the time between records."""
    minutes = count(0.0, 300.0)
    state, _, agent = run(tmp_path, {}, experiments=None, max_hours=1.0, clock=lambda: next(minutes))
    assert state.stopped_early == "session.max_hours=1 was reached"
    assert 0 < len(state.experiments) < 6 and state.closed and state.gain is not None
    assert {view.num_experiments for view in agent.views} == {None}


def test_what_was_attempted_before_a_stop_is_written_before_it(tmp_path: Path) -> None:
    witness = Witness()

    class Cheat(Script):
        def propose(self, view: View) -> Proposal | None:
            witness.note("proposal-000", "edit_path", "../harness/stats.py")
            return None

    run(tmp_path, {}, witness=witness, agent=Cheat())
    kinds = [record.type for record in read(tmp_path / "journal.jsonl")[0]]
    assert kinds.index("stopped") == kinds.index("integrity") + 1


def test_an_equal_score_is_no_gain(tmp_path: Path) -> None:
    state, bench, _ = run(tmp_path, {}, experiments=1)
    assert state.experiments[0].kept is False and state.experiments[0].delta_sigma == 0.0
    assert not [call for call in bench.calls if call[0] is Role.RERUN]


def test_a_failed_rerun_is_no_gain(tmp_path: Path) -> None:
    state, _, _ = run(tmp_path, {(Role.EXPERIMENT, 0): 1.5, (Role.RERUN, 0): Status.OOM}, experiments=1)
    experiment = state.experiments[0]
    assert (experiment.kept, experiment.val_bpb, experiment.status) == (False, None, Status.OOM)


def test_confirmation_is_paired_interleaved_and_on_test(tmp_path: Path) -> None:
    scores = {
        (Role.EXPERIMENT, 0): 1.5,
        (Role.RERUN, 0): 1.5,
        (Role.CONFIRM_CANDIDATE, 0): 1.6,
        (Role.CONFIRM_CANDIDATE, 1): 1.7,
    }
    state, bench, _ = run(tmp_path, scores, experiments=1)
    confirm = bench.calls[-4:]
    base, cand = Role.CONFIRM_BASELINE, Role.CONFIRM_CANDIDATE
    assert [role for role, *_ in confirm] == [base, cand, cand, base]
    assert {split for *_, split in confirm} == {"test"}
    assert confirm[0][2] == confirm[1][2] != confirm[2][2] == confirm[3][2]
    assert all(("RATE = 2.0" in source) == (role is cand) for role, source, *_ in confirm)
    assert state.gain is not None and state.gain.mean_bpb == pytest.approx(0.35)
    seeds = [seed for role, _, seed, _ in bench.calls if role not in (base, cand)]
    assert len(set(seeds)) == len(seeds) and not {call[2] for call in confirm} & set(seeds)


def test_identical_trees_are_retrained_too(tmp_path: Path) -> None:
    state, bench, _ = run(tmp_path, {}, experiments=0)
    assert [role for role, *_ in bench.calls].count(Role.CONFIRM_CANDIDATE) == 2
    assert state.gain is not None and state.gain.mean_bpb == 0.0


def test_a_failed_confirmation_is_recorded_not_repeated(tmp_path: Path) -> None:
    scores = {(Role.EXPERIMENT, 0): 1.5, (Role.RERUN, 0): 1.5, (Role.CONFIRM_CANDIDATE, 1): Status.CRASH}
    state, _, _ = run(tmp_path, scores, experiments=1)
    assert state.gain is not None and state.gain.num_pairs == 1 and state.gain.low_bpb is None


def test_a_refused_edit_costs_the_experiment_and_runs_nothing(tmp_path: Path) -> None:
    bad = [Proposal("elsewhere", Edit(source=STOCK, path="../../harness/stats.py")), rate(2), rate(3)]
    state, bench, agent = run(tmp_path, {}, proposals=bad)
    assert state.experiments[0].status is Status.INVALID and "train.py" in str(state.experiments[0].reason)
    assert sum(role is Role.EXPERIMENT for role, *_ in bench.calls) == 2
    assert agent.views[1].history[0].reason == state.experiments[0].reason


def test_stopping_early_is_stated_and_still_confirmed(tmp_path: Path) -> None:
    state, _, _ = run(tmp_path, {}, proposals=[rate(2), None])
    assert len(state.experiments) == 1 and "script" in str(state.stopped_early)
    assert state.gain is not None and state.closed


def test_a_failing_stock_script_stops_the_session_with_nothing_recorded(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"the stock train\.py failed"):
        run(tmp_path, {(Role.BASELINE, 1): Status.CRASH})
    finished = [record for record in read(tmp_path / "journal.jsonl")[0] if record.type == "run_finished"]
    assert len(finished) == 1


def test_the_nonce_is_revealed_at_the_end_only(tmp_path: Path) -> None:
    run(tmp_path, {}, experiments=1)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["data"] == {"nonce": "nonce"}
    assert not any('"nonce"' in line for line in lines[:-1])


def test_commits_say_what_was_tried_and_what_came_of_it(tmp_path: Path) -> None:
    run(tmp_path, {(Role.EXPERIMENT, 0): 1.5, (Role.RERUN, 0): 1.6, (Role.EXPERIMENT, 1): Status.CRASH}, experiments=2)
    git = Workspace(tmp_path / "workspace").git
    kept, crashed = (git("log", "-1", "--format=%B", f"refs/experiments/000{index}") for index in (0, 1))
    assert kept.startswith("rate 2") and "Experiment 1: kept" in kept and "val 1.6000 bpb" in kept
    assert "Experiment 2: discarded" in crashed and "crash: written down" in crashed
