"""Sessions that contradict nothing: as they were run, unfinished, only odd, or made by what cannot be checked here."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import simulated
from doctored import Lines, bundled, data, doctored, finished, lines_of
from verified_sessions import said, script

from harness.journal import Record
from harness.records import Status
from leaderboard import checks
from leaderboard.bundle import write
from leaderboard.verify import examine, verify


def test_a_session_as_it_was_run_is_consistent(session: Path, tmp_path: Path) -> None:
    result = verify(write(session, tmp_path / "one.bundle.tar"))
    assert result.consistent and said(result) == ""
    assert len(result.findings) == len(checks.CHECKS) + 1


def resumed(lines: Lines) -> None:
    place = next(place for place, line in enumerate(lines) if line["type"] == "baseline") + 1
    data = {"reason": "resumed"}
    lines.insert(place, {"time": lines[place - 1]["time"] + 7, "type": "resumed", "data": data})
    for line in lines[place + 1 :]:
        line["time"] += 7


def payload(lines: Lines) -> None:
    """As of one who knows the text: what looks random, in literals of the length that an edit may have."""
    noise = base64.b85encode(random.Random(0).randbytes(1600)).decode().replace("\\", "/")
    winner = [line["data"]["index"] for line in lines if line["type"] == "decision" and line["data"]["kept"]][-1]
    proposal = data(lines, "proposal", winner)
    proposal["source"] += f"\nWORDS = {noise!r}\n"


def of_demo(lines: Lines) -> None:
    """Baselines of 2.0 where the task's have been 1.5."""
    config = data(lines, "session_open")["config"]
    config["task"]["name"], config["data"]["source"] = "demo", "pypi"


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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (resumed, "1 time, after 7 s without a record"),
        (of_demo, "bpb on val, where it was 1.48 to 1.52"),
        (payload, "bytes of new lines that compress to"),
    ],
)
def test_what_a_reader_should_look_at_is_told(
    records: list[Record], change: Callable[[Lines], None], expected: str
) -> None:
    assert expected in said(examine(doctored(records, change)))
    assert expected not in said(examine(doctored(records, lambda _: None)))


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
