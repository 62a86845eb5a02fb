"""W&B itself, in its own process: what it wrote is read back with its own tools; faults are real ones on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import synthetic_journal
from fake_wandb_server import serving

from harness import tracking
from harness.errors import HarnessError
from harness.fold import fold
from harness.journal import read
from harness.knobs import stock_source
from harness.records import SessionState
from harness.sizes import STOCK
from harness.tracking import _content as content
from harness.tracking import wandb
from harness.tracking._mirror import Worker, run_to_end

KEY = "0123456789abcdef" * 2 + "01234567"
PRELUDE = "import sys; from harness.tracking import _wandb_worker as worker; sys.argv[1:] = {argv!r}; "


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished session of six experiments, and no account."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc of the user's
    folder = tmp_path / "session"
    folder.mkdir()
    synthetic_journal.write(folder / "journal.jsonl")
    return folder


def run_files(session: Path) -> list[Path]:
    return sorted(session.glob("wandb/*run-2*/*.wandb"))


def inspect(file: Path, *options: str) -> str:
    command = [sys.executable, "-I", "-m", "wandb", "leet", "inspect", "--json", *options, str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def read_back(session: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary view and all records of the only run that is mirrored."""
    (file,) = run_files(session)
    return json.loads(inspect(file, "--summary")), [json.loads(line) for line in inspect(file).splitlines()]


def check_holds(session: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The mirror holds the session: every experiment, curve point, the table, the summary. Returns what it read."""
    state = fold(read(session / "journal.jsonl")[0])
    overview, records = read_back(session)
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    check_rows(rows, state)
    assert overview["state"] == ("finished" if state.closed else "failed")
    assert overview["summary"]["verdict"] == content.final(state)["verdict"]
    if state.gain and state.gain.low_bpb is not None:
        assert overview["summary"]["gain_low_bpb"] == pytest.approx(state.gain.low_bpb)
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert run["run_group"] == content.opening(state, "")["group"]
    axes = {
        record["metric"].get("glob_name"): record["metric"].get("step_metric")
        for record in records
        if record["type"] == "metric"
    }
    assert content.AXES.items() <= axes.items()
    (file,) = run_files(session)
    table = json.loads((file.parent / "files" / overview["summary"]["history_table"]["path"]).read_text())
    assert table["columns"] == list(content.COLUMNS)
    assert [line[0] for line in table["data"]] == list(range(len(state.experiments) + 1))
    return overview, records


def check_rows(rows: list[dict[str, Any]], state: SessionState) -> None:
    experiments = [row for row in rows if row.get("experiment/number", 0)]
    assert [row["experiment/number"] for row in experiments] == [item.index + 1 for item in state.experiments]
    assert [row.get("experiment/val_bpb") for row in experiments] == [item.val_bpb for item in state.experiments]
    assert [row["experiment/status"] for row in experiments] == [str(item.status) for item in state.experiments]
    for item in state.experiments:
        curve = [
            row[f"train/experiment-{item.index:03d}"] for row in rows if f"train/experiment-{item.index:03d}" in row
        ]
        assert curve == [point.loss for point in (item.run.curve if item.run else ())]
    assert sum("baseline/val_bpb" in row for row in rows) == len(state.baseline)
    assert sum("confirm/pair" in row for row in rows) == len(state.confirm_candidate)


def altered(session: Path, monkey: str) -> Worker:
    """The real worker after `monkey`, a statement that breaks the world around it."""
    whole = wandb.worker(session, os.environ, 60)
    code = PRELUDE.format(argv=list(whole.command[4:])) + monkey + "; worker.main()"
    return Worker("wandb", (sys.executable, "-I", "-c", code), whole.environment, whole.log_path, whole.remedy)


def test_an_offline_mirror_holds_the_session_and_asks_no_network(
    session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving("accept") as server:
        for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, server.url)
        bundle = session / "session.bundle"
        bundle.write_bytes(b"a bundle")
        line = tracking.mirror("wandb", session, bundle)
        assert server.requests == []
    assert " rows, 6 experiments: " in line and "wandb sync" in line
    overview, records = check_holds(session)
    assert overview["config"]["device"]["cpu_model"] == "Example CPU 3000"
    assert overview["config"]["calibration"]["tokens_per_second"] == 91_000
    artifacts = {record["artifact"]["type"]: record["artifact"] for record in records if record["type"] == "artifact"}
    (entry,) = artifacts["bundle"]["manifest"]["contents"]
    assert (entry["path"], entry["size"]) == ("session.bundle", "8")
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert run["host"] == "cpu", "the name of the machine that mirrors was sent"


def test_a_refused_key_is_one_line(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serving("refuse_all") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with pytest.raises(HarnessError, match=r"^wandb: \w+Error: [^\n]+$") as caught:
            tracking.mirror("wandb", session)
        assert server.requests
    assert KEY not in str(caught.value)
    files = [path for path in session.rglob("*") if path.is_file()]
    assert files and not any(KEY.encode() in path.read_bytes() for path in files)


def test_without_wandb_one_line_says_so(session: Path) -> None:
    with pytest.raises(HarnessError, match="wandb: ModuleNotFoundError: import of wandb halted"):
        run_to_end(altered(session, "sys.modules['wandb'] = None"))


def test_an_unknown_mode_is_one_line(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(HarnessError, match="WANDB_MODE=onlin: expected online, offline, disabled"):
        tracking.mirror("wandb", session)


@pytest.mark.slow
def test_a_rebuilt_mirror_is_the_same_run(session: Path) -> None:
    whole = (session / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (session / "journal.jsonl").write_bytes(b"".join(whole[:-6]))
    tracking.mirror("wandb", session)
    check_holds(session)
    (first,) = run_files(session)
    time.sleep(1.1)  # W&B names folders by the second
    (session / "journal.jsonl").write_bytes(b"".join(whole))
    tracking.mirror("wandb", session)
    check_holds(session)
    (second,) = run_files(session)
    assert first.name == second.name and first.parent != second.parent


@pytest.mark.slow
def test_an_online_mirror_holds_the_session(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    state = fold(read(session / "journal.jsonl")[0])
    with serving("accept") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        line = tracking.mirror("wandb", session)
        check_rows(server.history, state)
        assert server.run["groupName"] == content.opening(state, "")["group"]
        assert json.loads(server.run["config"])["task"]["value"]["name"] == "demo"
        assert json.loads(server.uploads["wandb-summary.json"])["gain_pairs"] == 3
        assert [item["artifactTypeName"] for item in server.artifacts] == ["run_table"]
        assert line.endswith(f"{server.url}/me/bpbench/runs/{server.run['name']}")


@pytest.mark.slow
def test_a_server_that_refuses_the_figures_is_told(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serving("refuse_history") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with pytest.raises(HarnessError, match=r"wandb: OSError: filestream: .*403"):
            tracking.mirror("wandb", session)


@pytest.mark.slow
def test_a_full_disk_is_told(session: Path) -> None:
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))"
    with pytest.raises(HarnessError, match=r"wandb: OSError: .* is incomplete: is the disk full"):
        run_to_end(altered(session, full))


@pytest.mark.slow
def test_a_server_that_hangs_ends_at_the_limit(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with serving("hang") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with pytest.raises(HarnessError, match="wandb: TimeoutError: not finished 3 s after the end of the session"):
            run_to_end(wandb.worker(session, os.environ, 3))


# Real sessions on the step clock: a kept experiment, one that prints its whole environment and crashes, a refused one.
WEAK = 0.005


@pytest.fixture(scope="module")
def overrides(tiny_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    patches = tmp_path_factory.mktemp("patches")
    weak = next(line for line in stock_source(STOCK, {"EMBED_LR": WEAK}).splitlines() if line.startswith("EMBED_LR"))
    nosy = "    import os\n    print(dict(os.environ), open('/proc/self/environ').read())\n    raise RuntimeError('x')"
    edits = [("A rate that learns", weak, "EMBED_LR = 0.3"), ("Look around", "    run = lab.open()", nosy)]
    for number, (words, old, new) in enumerate([*edits, ("Nothing to find", "no such line", "")]):
        block = f"<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"
        (patches / f"{number}.edit").write_text(f"# {words}\n{block}")
    return [
        *(*tiny_overrides, "agent=scripted", f"agent.options.patches={patches}", "session.experiments=3"),
        *("task.baseline_seeds=2", "task.confirm_seeds=2", "session.name=tracked", "tracker=wandb"),
        *(f"++task.knobs.{name}={WEAK}" for name in ("EMBED_LR", "MATRIX_LR", "HEAD_LR")),
    ]


def start(arguments: list[str], tmp_path: Path, home: Path, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *arguments],
        env={**clean, "HOME": str(tmp_path), "BPBENCH_HOME": str(home), **environment},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def worker_of(session: Path) -> psutil.Process | None:
    with suppress(OSError, ValueError, psutil.NoSuchProcess):
        process = psutil.Process(int((session / "wandb" / "mirror.lock").read_text()))
        return process if "harness.tracking._wandb_worker" in process.cmdline() else None
    return None


def wait_for_worker(session: Path) -> None:
    if (process := worker_of(session)) is not None:
        process.wait(60)


@pytest.mark.slow
def test_a_session_killed_and_resumed_is_mirrored_whole(
    overrides: list[str], bpbench_home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sessions" / "tracked"
    key = {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}
    process = start(["run", *overrides], tmp_path, bpbench_home, **key)
    while process.poll() is None:  # into the second experiment
        journal = folder / "journal.jsonl"
        if journal.exists() and journal.read_bytes().count(b'"type":"decision"'):
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_worker(folder)
    so_far = fold(read(folder / "journal.jsonl")[0])
    assert not so_far.closed
    check_holds_rows(folder, so_far)

    output, _ = start(["resume", str(folder)], tmp_path, bpbench_home, **key).communicate(timeout=300)
    wait_for_worker(folder)
    state = fold(read(folder / "journal.jsonl")[0])
    assert state.closed and len(state.experiments) == 3, output
    assert state.experiments[1].status == "crash", "the nosy experiment did not run"
    check_holds(folder)
    holders = [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert holders == []

    shutil.rmtree(folder / "wandb")
    track = start(["track", str(folder)], tmp_path, bpbench_home, WANDB_MODE="offline")
    output, _ = track.communicate(timeout=60)
    assert track.returncode == 0 and "3 experiments" in output
    check_holds(folder)


def check_holds_rows(session: Path, state: SessionState) -> None:
    """As far as a killed session came: every decided experiment."""
    _, records = read_back(session)
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    numbers = [row["experiment/number"] for row in rows if row.get("experiment/number", 0)]
    assert numbers == [item.index + 1 for item in state.experiments if item.kept is not None]


@pytest.mark.slow
def test_a_session_does_not_wait_for_a_server_that_hangs(
    overrides: list[str], bpbench_home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sessions" / "tracked"
    with serving("hang") as server:
        process = start(["run", *overrides], tmp_path, bpbench_home, WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0 and server.asked.is_set(), output
        assert fold(read(folder / "journal.jsonl")[0]).closed
        told = [line for line in output.splitlines() if "wandb" in line]
        assert len(told) == 1 and told[0].startswith("bpbench: wandb is finishing in the background"), output
        worker = worker_of(folder)
        assert worker is not None, "it ended before the server answered"
        worker.kill()


@pytest.mark.slow
def test_a_session_tells_a_refused_key_once(overrides: list[str], bpbench_home: Path, tmp_path: Path) -> None:
    with serving("refuse_all") as server:
        process = start(["run", *overrides], tmp_path, bpbench_home, WANDB_API_KEY=KEY, WANDB_BASE_URL=server.url)
        output, _ = process.communicate(timeout=300)
    lines = [line for line in output.splitlines() if "wandb" in line]
    assert process.returncode == 0
    assert len(lines) == 1 and lines[0].startswith("bpbench: wandb: ") and "the session is not affected" in lines[0], (
        output
    )
