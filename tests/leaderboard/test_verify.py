"""Verification finds what contradicts itself, however well it is chained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from doctored import Lines, bundled, data, doctored, finished
from verified_sessions import said, script

from harness import stats
from harness.codec import to_json
from harness.journal import Record
from harness.sandbox import canaries
from leaderboard import runs
from leaderboard.outcome import counted_gain
from leaderboard.verify import examine
from trainer.trusted import audit


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
