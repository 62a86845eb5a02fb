from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import synthetic_journal

from harness.codec import from_json, to_json
from harness.errors import JournalError
from harness.fold import apply, fold
from harness.journal import Record
from harness.records import Audit, CurvePoint, Edit, Gain, Role, RunResult, SessionState, Status


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return synthetic_journal.write(tmp_path_factory.mktemp("session") / "journal.jsonl")


def retyped(record: Record, **changes: Any) -> Record:
    return replace(record, data={**record.data, **changes})


def position(records: Iterable[Record], kind: str) -> int:
    return next(number for number, record in enumerate(records) if record.type == kind)


def test_a_whole_session(records: list[Record]) -> None:
    state = fold(records)
    assert state.closed and state.active is None and state.proposing is None
    assert [run.bpb for run in state.baseline] == [2.012, 2.018, 2.009]
    assert (state.baseline_bpb, state.sigma_bpb) == (2.013, 0.005)
    assert [item.kept for item in state.experiments] == [True, False, False, True, False, False]
    assert [item.status for item in state.experiments] == ["ok", "ok", "crash", "ok", "invalid", "ok"]
    assert [item.rerun is not None for item in state.experiments] == [True, False, False, True, False, False]
    assert len(state.confirm_baseline) == len(state.confirm_candidate) == 3
    assert state.gain is not None and state.gain.candidate_bpb == (1.977, 1.969, 1.984)
    assert state.calibration is not None and state.calibration.budget_seconds == 12.0
    assert state.unranked == ("no isolation on this device",)
    assert "config" not in state.opened and state.config["task"] == {"name": "demo"}
    assert state.experiments[0].usage is not None and state.experiments[0].usage.cost_usd == 0.01
    assert state.working_seconds == pytest.approx(records[-1].time - records[0].time)


def test_a_refused_edit_is_an_invalid_experiment(records: list[Record]) -> None:
    refused = fold(records).experiments[4]
    assert refused.source is None and refused.run is not None
    assert (refused.run.status, refused.run.code) == (Status.INVALID, "edit")
    assert refused.reason == "train.py line 12: invalid syntax"


def test_every_prefix_folds_and_one_more_record_is_one_more_step(records: list[Record]) -> None:
    state = SessionState()
    for number, record in enumerate(records):
        state = apply(state, record)
        assert state == fold(records[: number + 1])


def test_a_run_that_did_not_finish_is_active_and_a_resume_forgets_it(records: list[Record]) -> None:
    start = position(records, "run_started")
    state = fold(records[: start + 1])
    assert state.active is not None and state.baseline == ()
    assert (state.active.run_id, state.active.role, state.active.seed) == ("baseline-0", Role.BASELINE, 100)
    later = Record(start + 1, records[start].time + 5000.0, "resumed", {"reason": "killed"}, "")
    resumed = fold([*records[: start + 1], later])
    assert resumed.active is None and resumed.num_restarts == 1
    assert resumed.working_seconds == state.working_seconds, "nobody worked between the kill and the resume"


def test_a_clock_that_was_set_back_does_not_shorten_the_work(records: list[Record]) -> None:
    state = fold([*records[:2], replace(records[2], time=0.0)])
    assert state.working_seconds == pytest.approx(records[1].time - records[0].time)


def test_an_early_stop_and_incidents(records: list[Record]) -> None:
    extra = [Record(2, 0.0, "incident", {"text": "hot"}, ""), Record(3, 0.0, "stopped", {"reason": "no ideas"}, "")]
    state = fold([*records[:2], *extra])
    assert (state.incidents, state.stopped_early) == (("hot",), "no ideas")


def test_finishing_or_deciding_twice_is_impossible(records: list[Record]) -> None:
    for kind in ("run_finished", "proposal", "decision"):
        at = position(records, kind)
        with pytest.raises(JournalError, match=rf"record {records[at].seq} \({kind}\)"):
            fold([*records[: at + 1], records[at]])


def test_impossible_and_malformed_records_are_named(records: list[Record]) -> None:
    opened = records[:1]
    finished = records[position(records, "run_finished")]
    proposal = records[position(records, "proposal")]
    bad = [
        ([replace(records[1], seq=0)], "a journal starts with session_open"),
        ([*opened, records[0]], "session_open is out of place"),
        ([*opened, replace(records[1], type="banana")], "unknown type 'banana'"),
        ([*opened, retyped(finished, role="boss")], "role: expected one of baseline"),
        ([*opened, retyped(finished, index=7)], "index 7 after 0"),
        ([*opened, retyped(finished, role="experiment")], "no experiment 0 was proposed"),
        ([*opened, retyped(proposal, hypothesis=3)], "hypothesis: expected str"),
        ([*opened, replace(proposal, data={"index": 0})], "field 'hypothesis' is missing"),
    ]
    for lines, words in bad:
        with pytest.raises(JournalError, match=words):
            fold(lines)


def result(**changes: Any) -> RunResult:
    points = (CurvePoint(0.5, 1, 9.25, 2048), CurvePoint(1.0, 2, 7.5))
    audit = Audit(512, 0.0, -0.001, 0.001, 1, 512, 3, 2)
    base = RunResult(Status.OK, "val", bpb=1.25, audit=audit, curve=points, log_tail="a\nb")
    return replace(base, **changes)


@pytest.mark.parametrize(
    "value",
    [
        result(),
        result(status=Status.OOM, bpb=None, audit=None, curve=(), reason="8 GiB"),
        Gain(2, None, None, None, (1.0, None), (None, 1.5)),
        Edit(blocks=(("a", "b"), ("c", "d"))),
    ],
)
def test_records_survive_json(value: Any) -> None:
    assert from_json(type(value), to_json(value)) == value


def test_a_diverged_loss_survives_json() -> None:
    diverged = result(curve=tuple(CurvePoint(0.0, 1, loss) for loss in (math.nan, math.inf, -math.inf)))
    losses = [point.loss for point in from_json(RunResult, to_json(diverged)).curve]
    assert math.isnan(losses[0]) and losses[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra": 1}, "RunResult: unknown field 'extra'"),
        ({"status": "fine"}, "RunResult.status: expected one of ok, crash"),
        ({"status": ["ok"]}, "RunResult.status: expected one of ok, crash"),
        ({"bpb": "1.2"}, "RunResult.bpb: expected a number"),
        ({"bpb": True}, "RunResult.bpb: expected a number"),
        ({"num_snapshots": 1.5}, "RunResult.num_snapshots: expected int"),
        ({"num_snapshots": None}, "RunResult.num_snapshots: expected int"),
        ({"curve": {}}, "RunResult.curve: expected an array"),
        ({"curve": [{"seconds": 1.0}]}, r"RunResult.curve\[0\]: field 'step' is missing"),
        ({"audit": 3}, "RunResult.audit: expected an object"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(JournalError, match=words):
        from_json(RunResult, {**to_json(result()), **changes})


def test_missing_fields_are_named() -> None:
    fields = to_json(result())
    del fields["bpb"]
    with pytest.raises(JournalError, match="RunResult: field 'bpb' is missing"):
        from_json(RunResult, fields)
    fields = to_json(result())
    del fields["setup_work_seconds"]  # came in later: older data lack it
    assert from_json(RunResult, fields).setup_work_seconds is None
    with pytest.raises(JournalError, match=r"Edit.blocks\[0\]: expected an array of 2"):
        from_json(Edit, {"source": None, "blocks": [["a"]], "path": "train.py"})
