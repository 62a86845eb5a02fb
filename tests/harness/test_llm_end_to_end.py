"""The command line and the scripted model, a session a test: on the step clock, coding agents on `demo`."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.agents.llm import SCAFFOLD_VERSION
from harness.fold import fold
from harness.journal import read
from harness.records import SessionState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TINY = ("task=tiny", "backend=null", "data=synthetic", "task.baseline_seeds=2", "task.confirm_seeds=2")
DEMO = ("task=demo", "task.baseline_seeds=2", "task.confirm_seeds=2")  # fewer seeds: it is the agent that is tested
WIRES = {"openai": "openai/scripted", "anthropic": "anthropic/scripted", "ollama": "ollama_chat/scripted"}


def bpbench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *arguments]
    env = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


def scripted(root: Path, name: str, wire: str, *more: str) -> list[str]:
    chosen = ["agent=llm", "llm=scripted", f"llm.model={WIRES[wire]}", f"llm.scripted.wire={wire}"]
    return ["run", *TINY, *chosen, "session.experiments=4", f"session.root={root}", f"session.name={name}", *more]


def state_of(folder: Path) -> SessionState:
    return fold(read(folder / "journal.jsonl")[0])


def tried(state: SessionState) -> list[tuple[Any, ...]]:
    return [(item.hypothesis, item.source, item.val_bpb, item.kept) for item in state.experiments]


@pytest.fixture(scope="module")
def calm(bpbench_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sessions")
    bpbench(*scripted(root, "openai", "openai"))
    return root / "openai"


def test_a_session_from_the_command_line(calm: Path) -> None:
    state = state_of(calm)
    assert state.closed and state.gain is not None and len(state.experiments) == 4
    facts = state.opened["researcher"]
    assert (
        facts["scaffold_version"] == SCAFFOLD_VERSION and facts["model"] == "openai/scripted" and facts["tools"] is True
    )
    summary = json.loads((calm / "summary.json").read_text())
    assert summary["llm"]["calls"] == 7 and summary["names"]["agent"] == "llm (scripted)" and not summary["ranked"]
    assert any("script, no language model" in reason for reason in summary["unranked"])


@pytest.mark.parametrize("wire", ["anthropic", "ollama"])
def test_other_wire_formats_come_to_the_same(calm: Path, wire: str) -> None:
    bpbench(*scripted(calm.parent, wire, wire))
    assert tried(state_of(calm.parent / wire)) == tried(state_of(calm))


def test_a_storm_with_hung_calls_comes_to_the_same(calm: Path) -> None:
    more = ("llm.scripted.fault_rate=0.3", "llm.timeout_seconds=8", "agent.options.repairs=8")
    bpbench(*scripted(calm.parent, "storm", "openai", *more))
    storm = state_of(calm.parent / "storm")
    # The number of repairs is said in the prompt, which the script does not read.
    assert tried(storm) == tried(state_of(calm))
    assert storm.llm.num_calls > 7


def test_a_replay_without_a_model(calm: Path) -> None:
    name = [f"session.root={calm.parent}", "session.name=again"]
    bpbench("run", *TINY, "agent=replay", f"agent.options.session={calm}", *name)
    again = state_of(calm.parent / "again")
    assert [item.source for item in again.experiments] == [item.source for item in state_of(calm).experiments]
    assert again.llm.num_calls == 0 and again.closed


def test_kills_lose_nothing_and_pay_nothing_twice(calm: Path) -> None:
    folder, rng, kills = calm.parent / "killed", random.Random(5), 0
    landed = 0
    while True:
        resuming = (folder / "journal.jsonl").exists()
        if not resuming:
            shutil.rmtree(folder, ignore_errors=True)
        arguments = ["resume", str(folder)] if resuming else scripted(calm.parent, "killed", "openai")
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if kills == 6:
            assert process.wait(600) == 0
            break
        time.sleep(rng.uniform(3.0, 20.0))
        if process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            assert not psutil.wait_procs(below, timeout=30)[1]
            landed += 1
        kills += 1
    assert landed
    state, whole = state_of(folder), state_of(calm)
    assert tried(state) == tried(whole)
    assert state.llm.outcomes["ok"] == whole.llm.outcomes["ok"]


def test_the_doctor_and_the_server_that_users_start(tmp_path: Path) -> None:
    done = bpbench("doctor", "agent=llm", "llm=scripted", "--ping")
    assert "ping: scripted answered 'ok'" in done.stdout
    server = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "serve-scripted", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[2]
        where = ["llm=openai_compatible", "llm.model=openai/scripted", f"llm.api_base={url}/v1"]
        assert "answered 'ok'" in bpbench("doctor", "agent=llm", *where, "--ping").stdout
        local = ["llm=ollama", "llm.model=ollama_chat/scripted", f"llm.api_base={url}"]
        assert "answered 'ok'" in bpbench("doctor", "agent=llm", *local, "--ping").stdout
    finally:
        server.terminate()
        server.wait(30)


CLIS = Path(os.environ.get("BPBENCH_TEST_CLIS", "/nonexistent"))  # a folder in which npm installed the two programs

HOME = os.environ.get("BPBENCH_TEST_HOME")  # a home with the data of demo; else they are fetched and prepared here


@pytest.mark.parametrize("program", ["claude", "codex"])
def test_a_real_coding_agent_drives_two_experiments_of_demo(
    program: str, bpbench_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [str(CLIS / "node_modules" / ".bin")]
    if shutil.which(program, path=os.pathsep.join([*folders, os.environ["PATH"]])) is None:
        pytest.skip(f"{program} is not installed: npm i -g @anthropic-ai/claude-code @openai/codex")
    monkeypatch.setenv("BPBENCH_HOME", HOME or str(bpbench_home))
    monkeypatch.setenv("PATH", os.pathsep.join([*folders, os.environ["PATH"]]))
    from harness.scripted_llm.script import Script
    from harness.scripted_llm.server import ScriptedServer

    with ScriptedServer(Script()) as server:
        name = [*DEMO, f"session.root={tmp_path}", "session.name=it", "session.experiments=2"]
        if program == "claude":
            environment = {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "scripted"}
            bpbench("run", "agent=claude_code", *name, **environment)
        else:
            provider = f'{{name="scripted",base_url="{server.url}/v1",env_key="CODEX_API_KEY",wire_api="responses"}}'
            more = ["--model", "scripted"]
            more += ["-c", "model_provider=scripted", "-c", f"model_providers.scripted={provider}"]
            chosen = "[" + ",".join("'" + part + "'" for part in more) + "]"
            bpbench("run", "agent=codex", f"agent.options.arguments={chosen}", *name, CODEX_API_KEY="scripted")
    state = state_of(tmp_path / "it")
    assert state.closed and state.stopped_early is None and state.gain is not None
    assert len(state.experiments) == 2 and all(item.source and item.val_bpb for item in state.experiments)
    assert state.told is not None and state.told.prompt_tokens
    # Calibrated, trained and evaluated for real, with the agent waiting.
    assert state.calibration is not None and all(item.run and item.run.curve for item in state.experiments)
