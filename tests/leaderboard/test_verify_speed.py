"""The metered clock and the speed of a device: what its meter contradicts, what is not ranked, what is repeated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import simulated
from doctored import Lines, bundled, data, doctored, finished, lines_of
from verified_sessions import METERED, said

from harness.journal import Record
from leaderboard.bundle import write
from leaderboard.outcome import outcome
from leaderboard.verify import examine, verify


def test_a_metered_session_is_consistent(metered: list[Record]) -> None:
    result = examine(bundled(lines_of(metered)))
    assert result.consistent and said(result) == ""


def metered_of(lines: Lines, run_id: str) -> dict[str, Any]:
    found = finished(lines, run_id)["metered"]
    assert isinstance(found, dict)
    return found


def longer(lines: Lines) -> None:
    """More work than the budget, added up correctly."""
    run, meter = finished(lines, "experiment-000"), metered_of(lines, "experiment-000")
    made = data(lines, "calibration")
    run["train_seconds"] *= 1.1
    meter["used_tokens"] = 950.0 * made["pattern"]["stock_per_burst"] * run["train_seconds"]


def test_a_setup_that_uses_up_the_whole_budget_is_consistent(metered: list[Record]) -> None:
    """A budget of 0 s is known, and none was exceeded."""

    def change(lines: Lines) -> None:
        run = finished(lines, "experiment-000")
        run.update(status="timeout", bpb=None, audit=None, setup_seconds=1000.0, wall_seconds=1001.0)
        run.update(budget_seconds=0.0, train_seconds=0.0, eval_seconds=None, num_snapshots=0, snapshot_bytes=None)
        run["metered"].update(bursts=run["metered"]["bursts"][:1], budget_tokens=0.0, used_tokens=0.0, correction=1.0)

    told = said(examine(doctored(metered, change)))
    assert "runs and audits" not in told, told


METER_CONTRADICTIONS: dict[str, tuple[Callable[[Lines], object], str]] = {
    "ratio": (lambda x: data(x, "calibration")["pattern"].update(stock_per_burst=0.9), "stock_per_burst is 0.9"),
    "no bursts at calibration": (lambda x: data(x, "calibration").update(burst_tokens_per_second=[]), "no pattern"),
    "gate": (lambda x: data(x, "calibration").update(gate_bpb=0.0), "gate_bpb is 0.0"),
    "slow bursts": (
        lambda x: metered_of(x, "experiment-000")["bursts"][1].update(tokens_per_second=90.0),
        "used_token",
    ),
    "no bursts": (lambda x: metered_of(x, "experiment-000").update(bursts=[]), "without a pattern, bursts"),
    "order of bursts": (lambda x: metered_of(x, "experiment-000")["bursts"][2].update(at_seconds=1.0), "not in order"),
    "no meter": (lambda x: finished(x, "experiment-000").update(metered=None), "no record of the metered clock"),
    "correction": (lambda x: metered_of(x, "experiment-000").update(correction=1.0), "correction is 1.0"),
    "larger budget": (lambda x: metered_of(x, "experiment-000").update(budget_tokens=30_000.0), "budget_tokens is"),
    "longer": (longer, "of a budget of 20,480"),
}


@pytest.mark.parametrize("name", METER_CONTRADICTIONS)
def test_a_contradiction_of_the_meter_is_found(metered: list[Record], name: str) -> None:
    change, expected = METER_CONTRADICTIONS[name]
    result = examine(doctored(metered, change))
    assert not result.consistent and expected in said(result), said(result)


@pytest.mark.parametrize("speed", [0.7, 1.6])
def test_a_device_that_was_another_is_not_ranked(tmp_path: Path, speed: float) -> None:
    bench = simulated.SimulatedBench({"0.6": 0.03}, metered=True, speed=speed)
    folder = simulated.run_session(tmp_path / "slow", *METERED, bench=bench)
    result = verify(write(folder, tmp_path / "slow.bundle.tar"))
    assert result.consistent, said(result)
    made = outcome(result.bundle.records)
    assert any("of its calibrated speed" in reason and f"{100 * speed:.0f} %" in reason for reason in made.unranked)


@pytest.mark.parametrize(("speed", "ranked"), [(0.97, True), (0.85, False), (1.15, False)])
def test_a_candidate_beside_which_the_device_was_another_is_not_ranked(
    tmp_path: Path, speed: float, ranked: bool
) -> None:
    """The mean of all runs is within its limits."""
    bench = simulated.SimulatedBench({"0.6": 0.03}, metered=True, speed_of={"confirm_candidate": speed})
    folder = simulated.run_session(tmp_path / "uneven", *METERED, bench=bench)
    result = verify(write(folder, tmp_path / "uneven.bundle.tar"))
    assert result.consistent, said(result)
    reasons = " ".join(outcome(result.bundle.records).unranked)
    assert "of its calibrated speed" not in reasons
    assert ("beside the candidate than beside the stock script" not in reasons) == ranked


def test_a_run_around_which_the_speed_changed_is_repeated_once(tmp_path: Path) -> None:
    """Unconditionally: what is recorded is the second one, even where it is worse, and a second change is only told."""
    bench = simulated.SimulatedBench(
        {"0.6": 0.03}, drifting={"baseline-001": 1, "experiment-001": 2, "confirm_candidate-000": 1}
    )
    folder = simulated.run_session(tmp_path / "drift", "session.experiments=9", bench=bench)
    assert bench.cooled == 3
    made = [run_id for run_id, *_ in bench.runs]
    assert all(made.count(run_id) == 2 for run_id in ("baseline-001", "experiment-001", "confirm_candidate-000"))
    result = verify(write(folder, tmp_path / "drift.bundle.tar"))
    assert result.consistent and said(result) == ""
    assert result.bundle.state.incidents == ("experiment-001: the device was 25 % slower than calibrated",)
    for change, expected in (
        (lambda x: drifted(x)["result"].update(sentinel=[1000.0, 1000.0]), "was repeated although"),
        (lambda x: finished(x, "experiment-000").update(sentinel=[1000.0, 500.0]), "was not repeated although"),
    ):
        other = examine(doctored(list(result.bundle.records), change))
        assert not other.consistent and expected in said(other), said(other)


def test_a_device_that_changes_all_the_time_does_not_make_a_session_endless(tmp_path: Path) -> None:
    """A fifth of the planned runs, here two of twelve, is repeated; what changed after that is told."""
    runs = ("baseline-000", "baseline-002", "experiment-000", "confirm_baseline-001")
    bench = simulated.SimulatedBench({"0.6": 0.03}, drifting=dict.fromkeys(runs, 1))
    folder = simulated.run_session(tmp_path / "endless", bench=bench)
    result = verify(write(folder, tmp_path / "endless.bundle.tar"))
    assert result.consistent and said(result) == ""
    assert bench.cooled == 2
    assert [text.partition(":")[0] for text in result.bundle.state.incidents] == [
        "experiment-000",
        "confirm_baseline-001",
    ]


def drifted(lines: Lines) -> dict[str, Any]:
    return next(line["data"] for line in lines if line["type"] == "run_drifted")
