"""A session that is cut anywhere ends like one that was not."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from no_repository import NoRepository
from rich.console import Console

from harness import agents, cli
from harness.assemble import check_scaffold, run_session
from harness.compose import compose
from harness.config import AgentConfig, Config
from harness.data import DataInfo
from harness.device import Device
from harness.errors import ConfigError, DataError, DeviceError, HarnessError
from harness.fold import fold
from harness.journal import Journal, Record, read
from harness.knobs import stock_source
from harness.opening import PROTOCOL_VERSION, check_same
from harness.records import Calibration, Role, RunResult, SessionState, StockTimes
from harness.session import Session
from harness.sizes import STOCK
from harness.views.plain import PlainView
from harness.workspace import Workspace

WEAK, STRONG = 0.005, 0.3  # a stock script that hardly learns, so that the first experiment is surely a gain
BLOCK = "<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"
OVERRIDES = (
    *("agent=scripted", "session.experiments=4", "task.baseline_seeds=2", "task.confirm_seeds=2"),
    *(f"++task.knobs.{name}={WEAK}" for name in ("EMBED_LR", "MATRIX_LR", "HEAD_LR")),
)


class RecordedBench:
    """Answers with the results of a session that really ran, and refuses to be asked twice."""

    def __init__(self, finished: dict[str, RunResult], already_done: set[str]) -> None:
        self.finished = finished
        self.asked = set(already_done)

    def calibrate(self, stock_source: str, seed: int, sigma_bpb: float) -> Calibration:
        raise AssertionError("the step clock is never calibrated")

    def knowing(self, calibration: Calibration | None, stock: StockTimes) -> RecordedBench:
        return self

    def run(self, run_id: str, source: str, seed: int, split: str, role: Role) -> RunResult:
        assert run_id not in self.asked, f"{run_id} ran twice"
        self.asked.add(run_id)
        return self.finished[run_id]


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scripted experiments: one that is kept, one that crashes, one that the door refuses."""
    folder = tmp_path_factory.mktemp("patches")
    stock = stock_source(STOCK, {"EMBED_LR": WEAK})
    weak = next(line for line in stock.splitlines() if line.startswith("EMBED_LR"))
    edits = [
        "# A rate that learns\n" + BLOCK.format(old=weak, new=f"EMBED_LR = {STRONG}"),
        "# Crash\n" + BLOCK.format(old="    run = lab.open()", new="    raise RuntimeError('on purpose')"),
        "# Too much in one line\n"
        + BLOCK.format(old=f"EMBED_LR = {STRONG}", new=f"EMBED_LR = {STRONG}; X = '{'x' * 3000}'"),
    ]
    for number, text in enumerate(edits):
        (folder / f"{number}.edit").write_text(text)
    return folder


@pytest.fixture(scope="module")
def config(
    tiny_overrides: list[str], patches: Path, bpbench_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Config:
    root = tmp_path_factory.mktemp("sessions")
    names = [f"agent.options.patches={patches}", f"session.root={root}", "session.name=whole"]
    return compose([*tiny_overrides, *OVERRIDES, *names])


@pytest.fixture(scope="module")
def whole(config: Config) -> Path:
    """The undisturbed session."""
    return run_session(config, tracker=PlainView(quiet_console()))


def quiet_console() -> Console:
    return Console(file=io.StringIO())


def outcome(state: SessionState) -> SessionState:
    """What must not depend on when a session was interrupted: all but times, commit ids and the count of restarts."""
    return replace(
        state,
        num_restarts=0,
        opened_at=None,
        last_at=None,
        working_seconds=0.0,
        experiments=tuple(replace(item, proposed_at=None, commit=None) for item in state.experiments),
    )


def test_a_session_is_what_its_journal_says(whole: Path) -> None:
    state = fold(read(whole / "journal.jsonl")[0])
    assert [str(item.status) for item in state.experiments] == ["ok", "crash", "invalid"]
    assert [item.kept for item in state.experiments] == [True, False, False]
    assert "RuntimeError: on purpose" in str(state.experiments[1].reason)
    assert [(item.run_id, item.family) for item in state.attempts] == [("proposal-002", "edit_size")]
    assert state.walls is not None and state.walls.level == 0
    assert state.stopped_early
    assert state.closed and state.gain is not None and state.gain.num_pairs == 2
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["finished"] and not summary["ranked"]


def finish(folder: Path, config: Config, whole_records: list[Record], kept: int, workspace: Any = None) -> SessionState:
    """Resume the session in `folder`, whose journal holds the first `kept` records."""
    finished = {}
    for length in range(1, len(whole_records) + 1):
        record = whole_records[length - 1]
        if record.type == "run_finished":
            finished[record.data["run_id"]] = result_of(whole_records[:length])
    done = {record.data["run_id"] for record in whole_records[:kept] if record.type == "run_finished"}
    bench = RecordedBench(finished, done)
    journal, records = Journal.open(folder / "journal.jsonl")
    with journal:
        records = [*records, journal.append("resumed", reason="test")]
        state = Session(
            config,
            journal,
            records,
            agent=agents.load(config.agent),
            bench=bench,
            workspace=workspace or NoRepository(),
            trackers=[],
            nonce=json.loads((folder / "secret.json").read_text())["nonce"],
        ).run()
    assert bench.asked == set(finished)
    return state


def result_of(records: list[Record]) -> RunResult:
    state, last = fold(records), records[-1].data
    runs = {
        Role.BASELINE: state.baseline,
        Role.CONFIRM_BASELINE: state.confirm_baseline,
        Role.CONFIRM_CANDIDATE: state.confirm_candidate,
    }
    role, index = Role(last["role"]), last["index"]
    if role in runs:
        return runs[role][index]
    experiment = state.experiments[index]
    result = experiment.rerun if role is Role.RERUN else experiment.run
    assert result is not None
    return result


def test_cut_after_every_record(whole: Path, config: Config, tmp_path: Path) -> None:
    records, _ = read(whole / "journal.jsonl")
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    expected = outcome(fold(records))
    for kept in range(1, len(lines)):
        folder = tmp_path / str(kept)
        folder.mkdir()
        shutil.copy(whole / "secret.json", folder)
        # Half of the next line is there too: a kill in the middle of a write.
        (folder / "journal.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
        assert outcome(finish(folder, config, records, kept)) == expected, f"cut after record {kept}"


def test_a_session_cut_after_its_first_record_is_resumed_too(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill during calibration: the walls are looked at again, and the gap is time in which nobody worked."""
    folder = tmp_path / "first"
    folder.mkdir()
    shutil.copy(whole / "secret.json", folder)
    first = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)[0]
    (folder / "journal.jsonl").write_bytes(first)
    monkeypatch.setattr(Session, "run", lambda session: session.state)
    run_session(None, resume=folder, tracker=PlainView(quiet_console()))
    state = fold(read(folder / "journal.jsonl")[0])
    assert state.num_restarts == 1 and state.working_seconds == 0.0


def test_the_confirmation_needs_no_edits(
    whole: Path, patches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a key or a program: whoever resumes it elsewhere has the journal."""
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    stopped = [record.type for record in read(whole / "journal.jsonl")[0]].index("stopped")
    monkeypatch.setattr(Session, "run", lambda session: session.state)
    gone = patches.rename(patches.with_name("gone"))
    try:
        for kept in (stopped, stopped + 1):
            folder = tmp_path / str(kept)
            folder.mkdir()
            shutil.copy(whole / "secret.json", folder)
            (folder / "journal.jsonl").write_bytes(b"".join(lines[:kept]))
        with pytest.raises(ConfigError, match="must be a folder"):
            run_session(None, resume=tmp_path / str(stopped), tracker=PlainView(quiet_console()))
        run_session(None, resume=tmp_path / str(stopped + 1), tracker=PlainView(quiet_console()))
    finally:
        gone.rename(patches)


def test_a_lost_workspace_is_rebuilt_from_the_journal(whole: Path, config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "workspace")
    records, _ = read(whole / "journal.jsonl")
    rebuilt, original = Workspace(folder / "workspace"), Workspace(whole / "workspace")
    finish(folder, config, records, len(records), rebuilt)
    refs = ("for-each-ref", "--format=%(refname) %(objectname)")
    assert rebuilt.git(*refs) == original.git(*refs)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def kill_and_sweep(process: subprocess.Popen[str]) -> None:
    """SIGKILL the harness alone: what it started must end by itself."""
    below = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive, f"outlived the harness: {alive}"


def killed_session(config: Config, whole: Path, tmp_path: Path, num_kills: int, seed: int) -> None:
    rng = random.Random(seed)
    overrides = [
        *("task=tiny", "backend=null", "data=synthetic", *OVERRIDES),
        *(f"session.root={tmp_path}", "session.name=killed"),
        f"agent.options.patches={config.agent.options['patches']}",
    ]
    folder = tmp_path / "killed"
    expected, _ = read(whole / "journal.jsonl")
    landed = 0
    for num_lines, seconds in moments(rng, len(expected), num_kills):
        process = start_or_resume(folder, overrides)
        wait_for_lines(folder / "journal.jsonl", num_lines, process)
        time.sleep(seconds)
        if process.poll() is None:
            kill_and_sweep(process)
            landed += 1
        output, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), output
    assert landed, f"seed {seed}: the session was over before it could be killed"
    process = start_or_resume(folder, overrides)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    records, torn = read(folder / "journal.jsonl")
    assert torn is None
    runs = [record.data["run_id"] for record in records if record.type == "run_finished"]
    assert len(runs) == len(set(runs)), f"seed {seed}: a finished run was repeated"
    assert scores(fold(records)) == scores(fold(expected)), f"seed {seed}"


def moments(rng: random.Random, num_records: int, num_kills: int) -> list[tuple[int, float]]:
    """When to kill: so many seconds after the journal has so many lines.

    Two in five hit the start of the process, for which a journal of no lines stands; at set times nearly all would.
    """
    num_early = round(0.4 * num_kills)
    lines = sorted(rng.sample(range(1, num_records - 1), num_kills - num_early))
    chosen = [(num_lines, rng.uniform(0.0, 1.0)) for num_lines in lines]  # a run takes about a second
    for number in range(num_early):
        # The first one comes first, when there is surely something to kill.
        chosen.insert(rng.randrange(len(chosen) + 1) if number else 0, (0, rng.uniform(0.0, 3.0)))
    return chosen


def start_or_resume(folder: Path, overrides: list[str]) -> subprocess.Popen[str]:
    journal = folder / "journal.jsonl"
    return start(["resume", str(folder)] if journal.exists() and read(journal)[0] else ["run", *overrides])


def wait_for_lines(path: Path, num_lines: int, process: subprocess.Popen[str]) -> None:
    """Until the session has come so far, or ended."""
    while process.poll() is None and (path.read_bytes().count(b"\n") if path.exists() else 0) < num_lines:
        time.sleep(0.01)


def scores(state: SessionState) -> object:
    experiments = [(item.hypothesis, item.status, item.reason, item.val_bpb, item.kept) for item in state.experiments]
    return state.baseline_bpb, experiments, state.gain, state.stopped_early


def test_its_best_script_and_how_it_came_about_leave_as_a_repository(whole: Path, tmp_path: Path, capsys: Any) -> None:
    state, target = fold(read(whole / "journal.jsonl")[0]), tmp_path / "out"
    assert cli.main(["export", str(whole), str(target)]) == 0 and state.incumbent is not None
    assert f"experiment {state.incumbent.index + 1};" in capsys.readouterr().out
    assert (target / "train.py").read_text() == state.incumbent.source

    def git(*words: str) -> list[str]:
        return subprocess.run(["git", "-C", target, *words], capture_output=True, text=True, check=True).stdout.split()

    kept = [item.commit for item in state.experiments if item.kept]
    assert git("log", "--format=%H", "--reverse", "main")[1:] == kept
    others = {item.commit for item in state.experiments if item.commit}
    assert set(git("for-each-ref", "--format=%(objectname)", "refs/experiments")) == others
    assert cli.main(["export", str(whole), str(target)]) == cli.EXIT_USAGE
    assert "exists already" in capsys.readouterr().err


def test_two_kills(config: Config, whole: Path, tmp_path: Path) -> None:
    """One while it starts, one later. Every run of the tests tries other moments."""
    killed_session(config, whole, tmp_path, num_kills=2, seed=int(time.time()))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_five_kills(config: Config, whole: Path, tmp_path: Path, seed: int) -> None:
    killed_session(config, whole, tmp_path, num_kills=5, seed=seed)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"device": {"name": "cpu", "fingerprint": "f" * 16}}, DeviceError, "resume it there, or start a new one$"),
        (
            {"device": {"name": "cpu", "fingerprint": "f" * 16, "num_cores": 2}},
            DeviceError,
            "it had 2 of the cores, here 16: `taskset -c 0-1 bpbench",
        ),
        ({"versions": {"torch": "2.12.0"}}, ConfigError, "began with torch 2.12.0, this is 2.13.0"),
        ({"key": {"protocol": 1}}, ConfigError, "began under version 1 of the protocol"),
        ({"data": {"data_sha256": "1" * 64}}, DataError, "start a new session"),
        ({"task_view": {"compile": True}}, DeviceError, "this session compiled, .* and there is no compiler now"),
    ],
)
def test_a_session_goes_on_under_what_it_began_under(
    changed: dict[str, Any], error: type[HarnessError], words: str
) -> None:
    identity = {"fingerprint": "0" * 16, "torch_version": "2.13.0", "num_cores": 16}
    device = Device("cpu", 2, "float32", identity, {})
    data = DataInfo(Path(), {"data_sha256": "0" * 64})
    opened = {
        "device": {"name": "cpu", **identity},
        "versions": {"torch": "2.13.0"},
        "key": {"protocol": PROTOCOL_VERSION},
        "data": {"data_sha256": "0" * 64},
        "task_view": {"compile": False},  # for want of a compiler
    }
    config = {"task": {"compile": True}}
    check_same(SessionState(config=config, opened=opened), data, device)
    with pytest.raises(error, match=words):
        check_same(SessionState(config=config, opened={**opened, **changed}), data, device)


def test_a_model_is_told_in_one_way_throughout() -> None:
    agent = agents.load(compose(["agent=llm", "llm=scripted"]).agent)
    config = {"session": {"experiments": 6}}
    older = SessionState(config=config, opened={"researcher": {"scaffold_version": 1}})
    with pytest.raises(ConfigError, match="began with version 1 of the scaffold, this is"):
        check_scaffold(older, agent)
    check_scaffold(replace(older, stopped_early="the researcher stopped: done"), agent)  # it is asked no more
    check_scaffold(SessionState(config=config, opened={}), agents.load(AgentConfig("noop")))
