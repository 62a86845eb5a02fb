"""Verification finds what contradicts itself, however well it is chained, and survives what strangers send."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import simulated
from doctored import Lines, bundled, data, doctored, finished, lines_of
from rich.console import Console

from harness import edits, fold, stats
from harness.codec import to_json
from harness.errors import HarnessError
from harness.journal import Record, read
from harness.records import Edit, Status
from harness.sandbox import canaries
from leaderboard import checks, decisions, runs, show
from leaderboard.aggregate import aggregate
from leaderboard.bundle import write
from leaderboard.outcome import counted_gain, outcome
from leaderboard.verify import Verified, examine, verify
from trainer.trusted import audit


@pytest.fixture(scope="module")
def records(session: Path) -> list[Record]:
    return read(session / "journal.jsonl")[0]


def said(result: Verified) -> str:
    return "\n".join(f"{f.level}: {name}: {f.where}: {f.text}" for name, found in result.findings for f in found)


def replace_values(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda target: target.update(values)


def test_a_session_as_it_was_run_is_consistent(session: Path, tmp_path: Path) -> None:
    result = verify(write(session, tmp_path / "one.bundle.tar"))
    assert result.consistent and said(result) == ""
    assert len(result.findings) == len(checks.CHECKS) + 1


def test_the_audit_has_one_set_of_limits() -> None:
    limits = (audit.MAX_LEAK_NATS, audit.MAX_LARGE_SHARE, audit.MIN_LARGE_ALLOWED)
    assert (runs.MAX_LEAK_NATS, float(runs.MAX_LARGE_SHARE), runs.MIN_LARGE_ALLOWED) == limits


def better_gain(lines: Lines) -> None:
    gain = data(lines, "confirmed")
    gain["mean_bpb"] += 0.01


def better_candidate(lines: Lines) -> None:
    finished(lines, "confirm_candidate-001")["bpb"] -= 0.01


def other_seed(lines: Lines) -> None:
    for line in lines:
        if line["type"].startswith("run_") and line["data"]["run_id"] == "confirm_candidate-001":
            line["data"]["seed"] += 1


def best_kept(lines: Lines) -> None:
    """Keep the third experiment, which was worse than the best."""
    data(lines, "decision", 2)["kept"] = True


def first_draw(lines: Lines) -> None:
    """Record the luckier of the two draws."""
    data(lines, "decision", 1)["val_bpb"] = finished(lines, "experiment-001")["bpb"]


def other_script(lines: Lines) -> None:
    data(lines, "proposal", 1)["source"] += "# another line\n"


def script(changed: Callable[[str], str]) -> Callable[[Lines], None]:
    """Another third script than the one that ran, with an edit that makes it."""

    def change(lines: Lines) -> None:
        proposal = data(lines, "proposal", 2)
        proposal["source"] = changed(proposal["source"])
        proposal["edit"] = {"source": proposal["source"], "blocks": [], "path": "train.py"}

    return change


def one_more(kind: str, **values: str) -> Callable[[Lines], None]:
    """A line behind the last one: the same session under another head."""
    return lambda lines: lines.append({"time": lines[-1]["time"], "type": kind, "data": values})


def wide_sigma(lines: Lines) -> None:
    """Baselines of other sessions that no text gives, pooled as the rules say."""
    earlier = [[1.0, 9.0]]
    values = [finished(lines, f"baseline-{index:03d}")["bpb"] for index in range(3)]
    prior = data(lines, "session_open")["config"]["task"]["sigma_prior_bpb"]
    sigma = stats.pooled_sigma([*earlier, values], prior)
    data(lines, "baseline").update(earlier_baselines=earlier, sigma_bpb=sigma)


def astronomical_audits(lines: Lines) -> None:
    """Counts that fit one another and that nothing computes with."""
    cuts = 10**400
    data(lines, "session_open")["config"]["task"]["audit_cuts"] = cuts
    counts = {"num_uniform": cuts, "num_targeted": cuts // 2, "num_large_positive": cuts // 4}
    for line in lines:
        if line["type"] == "run_finished":
            line["data"]["result"]["audit"].update(counts)


def spent(**values: Any) -> Callable[[Lines], None]:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost_usd": 0.1, "seconds": 1.0, **values}
    return lambda lines: data(lines, "proposal", 1).update(usage=usage)


def swapped_pair(lines: Lines) -> None:
    runs = [i for i, line in enumerate(lines) if line["data"].get("run_id", "").startswith("confirm_")]
    lines[runs[0] : runs[4]] = [*lines[runs[2] : runs[4]], *lines[runs[0] : runs[2]]]


def dropped_run(lines: Lines) -> None:
    """A baseline that was started, and again, and nothing says why."""
    start = next(i for i, line in enumerate(lines) if line["type"] == "run_started")
    lines.insert(start, {**lines[start]})


def late_calibration(lines: Lines) -> None:
    lines.insert(8, lines.pop(1))


def failed_stock(lines: Lines) -> None:
    """The pair in which the winner gained least is one in which the stock script failed; the gain follows from it."""
    finished(lines, "confirm_baseline-001").update(status="crash", bpb=None, audit=None)
    state = bundled(lines[:-1]).state
    data(lines, "confirmed").update(to_json(stats.confirmed_gain(state.confirm_baseline, state.confirm_candidate)))


def ran_without_a_script(lines: Lines) -> None:
    """No script and no refusal, and two runs that were better than everything."""
    data(lines, "proposal", 1).update(source=None, edit=None)


def refused_and_rerun(lines: Lines) -> None:
    """A refused proposal with a second run, whose score is recorded."""
    data(lines, "proposal", 1).update(source=None, refused="x", code="edit")
    lines[:] = [line for line in lines if line["data"].get("run_id") != "experiment-001"]


def copied_decision(lines: Lines) -> None:
    """The keep rule of a replay, in a session that repeats no other."""
    made = {"status": "ok", "val_bpb": 1.9, "delta_sigma": 1.0, "kept": True, "rerun": False}
    data(lines, "proposal", 2).update(recorded=made)
    data(lines, "decision", 2).update(kept=True)


def twice(kind: str) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        at = next(place for place, line in enumerate(lines) if line["type"] == kind)
        lines.insert(at, lines[at])

    return change


def better_walls_later(lines: Lines) -> None:
    """Begun behind an open wall, and resumed behind others that all hold."""
    data(lines, "session_open").update(unranked=[])
    held = {"name": "bubblewrap", "level": 3, "canaries": dict.fromkeys(canaries.NEEDED, canaries.HELD)}
    line = {"time": lines[1]["time"], "type": "resumed", "data": {"reason": "x", "walls": held, "unranked": []}}
    lines.insert(2, line)


FREE = {"prompt_tokens": None, "completion_tokens": None, "cost_usd": None, "seconds": None}
CONTRADICTIONS: dict[str, tuple[Callable[[Lines], object], str]] = {
    "gain": (better_gain, "confirmed gain: confirmation: mean_bpb"),
    "confirmation": (better_candidate, "confirmed gain: confirmation: mean_bpb"),
    "interval": (lambda x: data(x, "confirmed").update(low_bpb=0.029), "low_bpb"),
    "seed": (other_seed, "the rules deal"),
    "nonce": (lambda x: data(x, "closed").update(nonce="0" * 32), "not the one that the journal committed to"),
    "no nonce": (lambda x: data(x, "closed").pop("nonce"), "without revealing its nonce"),
    "session seed": (lambda x: data(x, "session_open")["config"]["session"].update(seed=1), "the rules deal"),
    "kept": (best_kept, "was kept against the rule"),
    "discarded": (lambda x: data(x, "decision", 1).update(kept=False), "was discarded against the rule"),
    "lucky draw": (first_draw, "its last run gave"),
    "delta": (lambda x: data(x, "decision", 0).update(delta_sigma=1.0), "sigmas, its runs give"),
    "commit": (lambda x: data(x, "decision", 0).update(commit="0" * 40), "git history: experiment 1: its commit is"),
    "hypothesis": (lambda x: data(x, "proposal", 1).update(hypothesis="I knew it"), "its script makes"),
    "script": (other_script, "not what the edit makes"),
    "large script": (script(lambda source: source + "#" * 40_000 + "\n"), "rule for edits: train.py would have"),
    "endless script": (script(lambda source: source + "#" * (1 << 20)), "a script of more than 1,048,576 characters"),
    "weights": (script(lambda source: source + 'WEIGHTS = "' + "w" * 3000 + '"\n'), "a literal of 3000 bytes"),
    "invisible": (script(lambda source: source + "# \u202e\n"), "character U+202E is not allowed"),
    "encoding": (script(lambda source: "# coding: latin-1\n" + source), "name an encoding"),
    "contract": (script(lambda source: "x = 1\n"), "the contract: define"),
    "no Python": (script(lambda source: source + "(\n"), "breaks a rule for edits: line"),
    "no edit": (lambda x: data(x, "proposal", 1).update(edit=None), "a script ran that no edit made"),
    "baseline": (lambda x: data(x, "baseline").update(baseline_bpb=2.1), "baseline: the mean is"),
    "sigma": (lambda x: data(x, "baseline").update(sigma_bpb=0.001), "its baselines give"),
    "earlier baselines": (lambda x: data(x, "baseline").update(earlier_baselines=[[9.0, 1.0]]), "its baselines give"),
    "odd earlier": (lambda x: data(x, "baseline").update(earlier_baselines=[["x"]]), "not a list of lists"),
    "implausible earlier": (wide_sigma, "earlier_baselines holds 9; expected bits per byte"),
    "one line more": (one_more("incident", text="x"), "incident comes after the session had closed"),
    "resumed again": (one_more("resumed", reason="x"), "resumed comes after the session had closed"),
    "memory": (lambda x: finished(x, "experiment-000").update(peak_memory_bytes=2**61), "peak_memory_bytes is 2305843"),
    "no memory": (lambda x: finished(x, "experiment-000").update(peak_memory_bytes=-1), "peak_memory_bytes is -1"),
    "endless run": (lambda x: finished(x, "experiment-000").update(wall_seconds="inf"), "wall_seconds is inf"),
    "cost": (spent(cost_usd="nan"), "cost_usd is nan"),
    "paid": (spent(cost_usd=-0.5), "cost_usd is -0.5"),
    "tokens": (spent(prompt_tokens=-1), "prompt_tokens is -1"),
    "astronomical audits": (astronomical_audits, "ok although 25000"),
    "rate": (lambda x: data(x, "calibration").update(tokens_per_second=500.0), "its blocks give"),
    "budget": (lambda x: data(x, "calibration").update(budget_seconds=40.0), "budget_seconds is 40.0"),
    "blocks": (lambda x: data(x, "calibration").update(block_tokens_per_second=[1000.0]), "at least 6"),
    "calibrated": (lambda x: data(x, "calibration").update(calibrated=False), "its gate says otherwise"),
    "longer budget": (
        lambda x: finished(x, "experiment-001").update(budget_seconds=30.0, train_seconds=30.0, wall_seconds=99.0),
        "due were",
    ),
    "overtime": (lambda x: finished(x, "experiment-001").update(train_seconds=24.0, wall_seconds=99.0), "trained 24"),
    "free time": (lambda x: finished(x, "experiment-001").update(setup_seconds=9.0), "its budget was"),
    "parts": (lambda x: finished(x, "experiment-001").update(eval_seconds=90.0), "its parts took"),
    "no audit": (lambda x: finished(x, "experiment-001").update(audit=None), "ok without an audit"),
    "leak": (lambda x: finished(x, "rerun-001")["audit"].update(lower_nats=0.1, mean_nats=0.2, upper_nats=0.3), "leak"),
    "leak at cuts": (lambda x: finished(x, "rerun-001")["audit"].update(num_large_positive=15), "15 of 32 tokens"),
    "learnt from the audit": (
        lambda x: finished(x, "rerun-001")["audit"].update(lower_nats=-0.3, mean_nats=-0.2, upper_nats=-0.1),
        "better by 0.1 nats",
    ),
    "noise at cuts": (
        lambda x: finished(x, "rerun-001")["audit"].update(num_large_uniform=2, num_large_negative=2),
        "4 of 32 tokens",
    ),
    "more than all": (
        lambda x: finished(x, "rerun-001")["audit"].update(num_large_uniform=17),
        "impossible counts",
    ),
    "few cuts": (lambda x: finished(x, "rerun-001")["audit"].update(num_targeted=8), "the task asks for 32"),
    "counts": (lambda x: finished(x, "rerun-001")["audit"].update(num_large_negative=-5), "impossible counts"),
    "decimals": (lambda x: finished(x, "experiment-000").update(bpb=2.0123456), "more than 4 decimals"),
    "score of a failure": (lambda x: finished(x, "experiment-000").update(status="crash"), "status crash with bpb"),
    "endless memory": (
        lambda x: finished(x, "rerun-001").update(peak_memory_bytes=10**400),
        "peak_memory_bytes is 1000",
    ),
    "infinite cost": (lambda x: data(x, "proposal", 1).update(usage={**FREE, "cost_usd": "inf"}), "cost_usd is inf"),
    "negative cost": (lambda x: data(x, "proposal", 1).update(usage={**FREE, "cost_usd": -1.0}), "cost_usd is -1.0"),
    "negative": (lambda x: finished(x, "experiment-000").update(bpb=-1.0), "is no score"),
    "no snapshot": (lambda x: finished(x, "experiment-000").update(num_snapshots=0), "without a snapshot"),
    "split": (lambda x: finished(x, "experiment-000").update(split="test"), "scored on 'test'"),
    "stock script": (lambda x: data(x, "session_open").update(stock_source="x = 1\n"), "stock_sha256 is not the hash"),
    "program": (lambda x: data(x, "session_open").update(program="cheat"), "program_sha256 is not the hash"),
    "key": (lambda x: data(x, "session_open")["key"].update(reference_tokens=7), "key.reference_tokens is 7"),
    "data": (lambda x: data(x, "session_open")["data"].update(data_sha256="0"), "key.data_sha256"),
    "fewer pairs": (lambda x: data(x, "session_open").update(num_confirm=2), "num_confirm is 2"),
    "order": (swapped_pair, "not in ABBA order"),
    "unseen restart": (dropped_run, "without a visible restart"),
    "late calibration": (late_calibration, "calibration is out of place"),
    "open walls": (lambda x: data(x, "session_open").update(unranked=[]), "does not say that it is not ranked"),
    "failed stock": (failed_stock, "the stock script failed in pair 2"),
    "no budget": (lambda x: finished(x, "experiment-001").update(budget_seconds=None), "ok without its budget"),
    "no setup": (lambda x: finished(x, "experiment-001").update(setup_seconds=None), "ok without its budget, setup"),
    "no training": (lambda x: finished(x, "experiment-001").update(train_seconds=None), "ok without its budget, setup"),
    "no speeds": (
        lambda x: finished(x, "experiment-001").update(sentinel=[]),
        "just before and just after it is missing",
    ),
    "one speed": (lambda x: finished(x, "experiment-001").update(sentinel=[1000.0]), "just after it is missing"),
    "no sentinel": (lambda x: data(x, "calibration").update(sentinel=None), "no sentinel's rate says"),
    "no script": (ran_without_a_script, "has neither a script nor a refusal"),
    "no script, and a run": (ran_without_a_script, "ran without a script"),
    "refused and run": (refused_and_rerun, "ran without a script"),
    "a decision of elsewhere": (copied_decision, "which only agent=replay does"),
    "two calibrations": (twice("calibration"), "calibration: is there 2 times"),
    "two baselines": (twice("baseline"), "baseline: is there 2 times"),
    "two confirmations": (twice("confirmed"), "confirmed: is there 2 times"),
    "better walls later": (better_walls_later, "does not say that it is not ranked: wall tcp is open"),
    "too many": (lambda x: data(x, "session_open")["config"]["session"].update(experiments=2), "2 were planned"),
    "too few": (lambda x: data(x, "session_open")["config"]["session"].update(experiments=9), "nothing says why"),
    "free work before the clock": (lambda x: finished(x, "experiment-000").update(setup_work_seconds=9.0), "due were"),
    "work not told": (lambda x: finished(x, "experiment-000").update(setup_work_seconds=None), "what its setup worked"),
    "learnt in its server": (
        lambda x: finished(x, "experiment-000").update(first_answer_seconds=9.0),
        "9.000 s before its first answer",
    ),
    "first answer not told": (
        lambda x: finished(x, "experiment-000").update(first_answer_seconds=None),
        "without the time of its first answer",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_found(records: list[Record], name: str) -> None:
    change, expected = CONTRADICTIONS[name]
    result = examine(doctored(records, change))
    assert not result.consistent
    assert any(line.startswith("broken") and expected in line for line in said(result).splitlines()), said(result)


def test_a_stock_script_that_failed_leaves_no_gain(records: list[Record]) -> None:
    gain, num_failed = counted_gain(doctored(records, failed_stock).state)
    assert (gain, num_failed) == (0.0, 1)


ODDITIES: dict[str, tuple[Callable[[Lines], object], str]] = {
    "speed": (lambda x: finished(x, "baseline-001")["curve"][-1].update(tokens=2_048), "10 % of reference_tokens"),
    "no count": (lambda x: finished(x, "baseline-001").update(curve=[]), "told no count"),
    "clocks": (lambda x: finished(x, "experiment-002").update(wall_seconds=99.0), "between its records"),
    "back in time": (lambda x: x[-1].update(time=5.0), "set back 1 times"),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_what_is_only_odd_stays_consistent_and_is_told(records: list[Record], name: str) -> None:
    change, expected = ODDITIES[name]
    result = examine(doctored(records, change))
    assert result.consistent and expected in said(result)
    assert all(line.startswith("odd") for line in said(result).splitlines())


def test_an_unfinished_session_says_what_cannot_be_checked(records: list[Record]) -> None:
    for length in range(1, len(records)):
        result = examine(bundled(lines_of(records)[:length]))
        assert result.consistent, said(result)
        assert "unknown: nonce and its commitment" in said(result)


def test_sigma_of_an_older_journal_is_unknown_not_wrong(records: list[Record]) -> None:
    result = examine(doctored(records, lambda x: data(x, "baseline").pop("earlier_baselines")))
    assert result.consistent and "does not name" in said(result)


def test_a_later_grammar_cannot_be_checked_and_excuses_nothing_else(records: list[Record]) -> None:
    def later(changed: Callable[[str], str]) -> str:
        def change(lines: Lines) -> None:
            script(changed)(lines)
            data(lines, "session_open")["versions"]["python"] = "99.0.1"

        return said(examine(doctored(records, change)))

    assert "unknown: edits and decisions: experiment 3: a later Python ran" in later(lambda source: source + "(\n")
    weights = later(lambda source: source + 'WEIGHTS = "' + "w" * 3000 + '"\n')
    assert "broken: edits and decisions: experiment 3: the script breaks a rule" in weights


def test_another_protocol_is_said(records: list[Record]) -> None:
    result = examine(doctored(records, lambda x: data(x, "session_open")["key"].update(protocol=99)))
    assert "made under version 99" in said(result)


def test_failures_and_refusals_are_consistent_too(tmp_path: Path) -> None:
    failing = {"experiment-000": Status.OOM, "confirm_candidate-001": Status.CRASH}
    bench = simulated.SimulatedBench({"0.6": 0.03}, failing=failing)
    values = ("0.5", "0.6", "(")  # the last is no Python
    folder = simulated.run_session(tmp_path / "failing", "session.experiments=4", bench=bench, values=values)
    result = verify(write(folder, tmp_path / "x.bundle.tar"))
    assert said(result) == ""
    assert result.bundle.state.stopped_early and result.bundle.state.gain and result.bundle.state.gain.num_pairs == 2


METERED = ("task.clock=metered",)


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """The same under the metered clock."""
    bench = simulated.SimulatedBench({"0.6": 0.03}, metered=True)
    folder = simulated.run_session(tmp_path_factory.mktemp("sessions") / "metered", *METERED, bench=bench)
    return read(folder / "journal.jsonl")[0]


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


def repeated(kind: str, count: int, **values: Any) -> Callable[[Lines], None]:
    """So many lines of a kind behind the first one; `{}` in a text is their number."""

    def change(lines: Lines) -> None:
        made = [{name: v.format(i) if isinstance(v, str) else v for name, v in values.items()} for i in range(count)]
        lines[1:1] = [{"time": lines[0]["time"], "type": kind, "data": {**each}} for each in made]

    return change


def test_what_a_state_copies_with_every_record_has_an_end(records: list[Record]) -> None:
    """A small file of many lines takes no time that grows with their square, and nothing that matters is lost."""
    noted = {"run_id": "baseline-000", "family": "leak"}
    many = [f"reason {number}" for number in range(500)]
    state = doctored(records, repeated("resumed", 3, reason="x", unranked=many)).state
    assert len(state.unranked) == fold.MAX_REASONS
    state = doctored(records, repeated("integrity", fold.MAX_ATTEMPTS + 5, evidence="{}", **noted)).state
    assert len(state.attempts) == fold.MAX_ATTEMPTS
    state = doctored(records, repeated("integrity", 5, evidence="the same", **noted)).state
    assert len(state.attempts) == 1
    state = doctored(records, repeated("incident", fold.MAX_INCIDENTS + 5, text="{}")).state
    assert len(state.incidents) == fold.MAX_INCIDENTS


def test_more_experiments_than_a_session_has_are_refused(records: list[Record]) -> None:
    def change(lines: Lines) -> None:
        first = next(place for place, line in enumerate(lines) if line["type"] == "proposal")
        told = {**lines[first]["data"], "source": None, "edit": None, "refused": "x"}
        lines[first:] = [{**lines[first], "data": {**told, "index": index}} for index in range(fold.MAX_OF_A_KIND + 1)]

    with pytest.raises(HarnessError, match="more than 10,000 of a kind"):
        doctored(records, change)


def test_edits_are_measured_before_they_are_applied(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of thousands of blocks fit into a line, and each one searches the whole script."""
    blocks = [["EMBED_LR = ", "EMBED_LR = "]] * 200_000
    many = examine(doctored(records, lambda x: data(x, "proposal")["edit"].update(blocks=blocks)))
    assert "experiment 1: the edits up to here have more blocks" in said(many)
    applied: list[Edit] = []

    def edited(edit: Edit, best_source: str) -> str:
        applied.append(edit)
        return edits.edited(edit, best_source)

    monkeypatch.setattr(decisions, "edited", edited)
    endless = examine(doctored(records, script(lambda source: source + "#" * (1 << 20))))
    assert "experiment 3: a script of more than" in said(endless) and len(applied) == 2


HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1e308, -1e308, 5e-324, "", "x", "nan", "-inf", "\ud800", "<script>", [], [[]], {},
    {"a": 1},
)  # fmt: skip


def leaves(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((value, key), *leaves(item))]


def survives(records: list[Record], rounds: range) -> None:
    """Any value anywhere: a refusal or findings, never another exception."""
    for seed in rounds:
        rng = random.Random(seed)
        lines = lines_of(records)
        for _ in range(rng.choice((1, 1, 3))):
            line = rng.choice(lines)
            container, key = rng.choice([*leaves(line["data"]), (line, "time"), (line, "type"), (line, "data")])
            container[key] = rng.choice(HOSTILE_VALUES)
        try:
            result = examine(bundled(lines))
            for _, found in result.findings:
                assert all(f.text.isprintable() and f.where.isprintable() for f in found)
            if result.consistent:
                shown = io.StringIO()
                show.boards(aggregate([outcome(result.bundle.records)]), Console(file=shown, width=200))
                assert shown.getvalue().replace("\n", "").isprintable()
        except HarnessError as error:
            assert "\n" not in str(error)


def test_hostile_values_are_survived(records: list[Record], metered: list[Record]) -> None:
    survives(records, range(60))
    survives(metered, range(60))


@pytest.mark.slow
def test_many_hostile_values_are_survived(records: list[Record], metered: list[Record]) -> None:
    survives(records, range(60, 4000))
    survives(metered, range(60, 4000))
