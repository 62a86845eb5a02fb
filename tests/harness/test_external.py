"""A program of its own drives a session over MCP, and what it may not do it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from llm_bench import STOCK, HashedBench, configured, made_line, run

from harness import assemble, mcp_server
from harness.config import AgentConfig, Config, LLMConfig
from harness.errors import ConfigError, HarnessError
from harness.journal import read
from harness.records import SessionState, Usage
from harness.service import MAX_LINE_BYTES, Service

PROGRAM = Path(__file__).with_name("external_program.py")


def edit(value: float) -> dict[str, Any]:
    return {"blocks": [{"search": "RATE = 1.0", "replace": f"RATE = {value}"}]}


def propose(value: float, **more: Any) -> list[Any]:
    return [
        "propose",
        {"hypothesis": f"rate {value}", "source": STOCK.replace("RATE = 1.0", f"RATE = {value}"), **more},
    ]


def session(
    folder: Path, *argv: str, experiments: int = 2, bench: HashedBench | None = None, **options: Any
) -> tuple[SessionState, HashedBench]:
    config: Config = configured(f"session.experiments={experiments}")
    config.agent = AgentConfig("external", {"argv": list(argv), **options})
    bench = bench or HashedBench()
    return run(folder, config, made_line(folder, None, []), bench), bench


def said(folder: Path) -> list[dict[str, Any]]:
    log = sorted((folder / "external").glob("output-*.log"))[-1]
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def test_two_experiments_over_mcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hidden")
    monkeypatch.setenv("A_KEY", "given")
    plan = [
        *(["task", {}], ["read_train_py", {}], ["history", {}], ["smoke", edit(3.0)], ["propose", {"hypothesis": ""}]),
        *(propose(2.0, note="remember"), ["history", {}], propose(3.0), ["history", {}]),
    ]
    state, bench = session(
        *(tmp_path, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps(plan)),
        environment=["A_KEY"],
        parser="codex",
    )
    first, listed, *calls, last = said(tmp_path)
    assert "A_SECRET" not in first["environment"] and "A_KEY" in first["environment"]
    assert first["home"].startswith(str(tmp_path)), "its home must be a fresh one"
    assert list(listed["tools"]) == list(mcp_server.TOOLS)
    assert all(meta == {"anthropic/maxResultSizeChars": 500_000} for meta in listed["tools"].values())
    texts = [call["text"] for call in calls]
    assert "Improve it." in texts[0] and texts[1] == STOCK and "# Experiment 1 of 2" in texts[2]
    assert "It ran." in texts[3] and len(bench.smokes) == 1
    assert calls[4]["error"] and "cost no experiment" in texts[4]
    assert texts[5].startswith("Experiment 1: ") and "1 experiments are left" in texts[5]
    assert "remember" in texts[6]
    assert "That was the last experiment" in texts[7]
    assert calls[8]["error"] and "all experiments are used" in texts[8]
    assert [item.hypothesis for item in state.experiments] == ["rate 2.0", "rate 3.0"]
    assert state.closed and state.stopped_early is None
    assert state.told == Usage(1200, 34) and last["type"] == "turn.completed"


def test_a_program_that_ends_early_is_a_stated_end(tmp_path: Path) -> None:
    state, _ = session(
        tmp_path, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps([propose(2.0)]), experiments=5
    )
    assert len(state.experiments) == 1 and state.closed
    assert state.stopped_early == "external ended by itself with status 0 after 1 proposals"


def test_a_program_that_was_killed_is_no_end_of_the_session(tmp_path: Path) -> None:
    """A machine out of memory decided that, not the program: the session can be resumed."""
    kill = (sys.executable, "-c", _PROPOSES_AND + "os.kill(os.getpid(), 9)", "{mcp_config}")
    with pytest.raises(HarnessError, match=r"status -9 after 1 proposals; .*nothing is lost: `bpbench resume"):
        session(tmp_path, *kill, experiments=3)
    plan = [propose(3.0)]
    state, _ = session(tmp_path, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps(plan), "plain", experiments=3)
    assert [item.hypothesis for item in state.experiments] == ["rate 2.0", "rate 3.0"]


_PROPOSES_AND = f"""
import json, os, pathlib, sys
from harness.mcp_server import ask
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
from test_external import propose
path = pathlib.Path(json.loads(pathlib.Path(sys.argv[1]).read_text())["mcpServers"]["bpbench"]["args"][-1])
ask(path, *propose(2.0))
"""


def test_a_program_that_cannot_work_stops_the_session_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    with pytest.raises(HarnessError, match=r"status 3 before it proposed anything; its last line: no key"):
        session(tmp_path, sys.executable, "-c", "print('no key'); raise SystemExit(3)")
    with pytest.raises(ConfigError, match="no program 'no-such-agent'"):
        session(tmp_path / "other", "no-such-agent")
    assert not list(short.iterdir()), "the folder of its socket"
    short.rmdir()


def test_a_program_that_does_nothing_is_ended(tmp_path: Path) -> None:
    state, _ = session(tmp_path, sys.executable, "-c", "import time; time.sleep(600)", max_turn_seconds=1.5)
    assert state.stopped_early == "external did not propose within 2 s" and state.closed


def test_chances_are_counted(tmp_path: Path) -> None:
    bad = ["propose", {"hypothesis": "x", "blocks": [{"search": "nowhere", "replace": ""}]}]
    plan = [bad, bad, ["smoke", edit(2.0)], ["smoke", edit(2.0)], propose(3.0)]
    state, bench = session(
        *(tmp_path, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps(plan), "plain"), repairs=2, smokes=1
    )
    assert len(bench.smokes) == 1
    first, second = state.experiments
    assert first.source is None and first.run is not None and first.run.code == "no_proposal"
    assert "smoke runs before this experiment are used" in str(first.reason)
    assert second.hypothesis == "rate 3.0" and second.val_bpb


def test_a_kill_gives_no_more_smoke_runs(tmp_path: Path) -> None:
    plan = [["smoke", edit(2.0)], ["smoke", edit(3.0)], propose(4.0)]
    session(tmp_path, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps(plan), "plain", experiments=1, smokes=2)
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    types = [record.type for record in read(tmp_path / "journal.jsonl")[0]]
    cut = len(types) - types[::-1].index("smoke_finished")
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
    plan = [["smoke", edit(5.0)], propose(6.0)]
    argv = (sys.executable, str(PROGRAM), "{mcp_config}", json.dumps(plan), "plain")
    state, bench = session(tmp_path, *argv, experiments=1, smokes=2)
    assert not bench.smokes and "smoke runs before this experiment are used" in said(tmp_path)[0]["text"]
    assert [item.hypothesis for item in state.experiments] == ["rate 6.0"]


def test_a_new_program_is_told_what_an_earlier_one_did(tmp_path: Path) -> None:
    session(tmp_path, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps([propose(2.0), propose(3.0)]), "plain")
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    records = read(tmp_path / "journal.jsonl")[0]
    kept = next(number for number, record in enumerate(records) if record.type == "decision") + 1
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:kept]))
    plan = [["history", {}], propose(4.0)]
    state, _ = session(tmp_path, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps(plan), "plain")
    assert [item.hypothesis for item in state.experiments] == ["rate 2.0", "rate 4.0"] and state.closed
    assert "rate 2.0" in said(tmp_path)[0]["text"]
    assert state.num_told == 2 and state.told == Usage(), "none of the two said what it used"


def test_what_killed_programs_used_is_asked_of_their_output(tmp_path: Path) -> None:
    """One that nobody saw ending and that said something, one that said nothing, and the last one."""
    said_cost = '{"type": "result", "total_cost_usd": 0.25, "usage": {"input_tokens": 10, "output_tokens": 7}}'
    prints = f"import sys, time; print({said_cost!r}); sys.stdout.flush(); time.sleep(600)"
    quiet = "import time; time.sleep(600)"
    options: dict[str, Any] = {"parser": "claude_code", "max_turn_seconds": 1.0}
    for number, (script, told) in enumerate([(prints, Usage(10, 7, 0.25)), (quiet, Usage())]):
        state, _ = session(tmp_path, sys.executable, "-c", script, **options)
        assert (state.num_told, state.told) == (number + 1, told)
        lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
        types = [record.type for record in read(tmp_path / "journal.jsonl")[0]]
        cut = len(types) - 1 - types[::-1].index("proposal_started") + 1  # killed while the program was thinking
        (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:cut]))
    state, _ = session(tmp_path, sys.executable, "-c", prints, **options)
    assert state.num_told == 3 and state.told == Usage(), "the second one's is unknown, so their sum is"


def test_a_session_may_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    state, _ = session(deep, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps([propose(2.0)]), "plain")
    assert len(state.experiments) == 1 and state.closed


def test_a_missing_program_is_found_before_anything_is_made() -> None:
    config = configured()
    config.agent, config.llm = AgentConfig("external", {"argv": ["no-such-agent"]}), LLMConfig()
    with pytest.raises(ConfigError, match="no program 'no-such-agent'"):
        assemble.researcher(config, asking=True)
    assert assemble.researcher(config, asking=False).name == "external"


def test_a_missing_key_is_found_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured()
    options = {"argv": [sys.executable], "environment": ["A_KEY|OTHER_KEY", "A_TOKEN", "B_TOKENS=60000", "HOST"]}
    config.agent, config.llm = AgentConfig("external", options), LLMConfig()
    for name in ("A_KEY", "OTHER_KEY", "A_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="external: A_KEY or OTHER_KEY or A_TOKEN is not set: export the key"):
        assemble.researcher(config, asking=True)
    monkeypatch.setenv("OTHER_KEY", "given")
    assert assemble.researcher(config, asking=True).name == "external"


def test_the_service_takes_anything(tmp_path: Path) -> None:
    service = Service(tmp_path / "s")
    try:
        with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rwb") as file:
            sock.connect(str(tmp_path / "s"))
            for line in (b"{", b"[1]", b'{"op": 3}', b"\xff\xfe"):
                file.write(line + b"\n")
                file.flush()
                assert "error" in json.loads(file.readline())
            file.write(b"x" * (MAX_LINE_BYTES + 10))
            file.flush()
            assert "more than" in json.loads(file.readline())["error"]
        answers: list[dict[str, Any]] = []
        asking = threading.Thread(target=lambda: answers.append(mcp_server.ask(tmp_path / "s", "task", {"a": 1})))
        asking.start()
        asked = service.next(10.0)
        assert asked is not None and (asked.op, asked.arguments["a"]) == ("task", 1)
        service.close()  # whoever still waits is told
        asked.refuse("over")
        asking.join(10.0)
        assert answers == [{"error": "over"}]
    finally:
        service.close()
    assert mcp_server.ask(tmp_path / "s", "task", {}) == {"error": "the session is over"}
    assert "there is no tool" in mcp_server.ask(tmp_path / "s", "rm", {})["error"]
    with pytest.raises(ConfigError, match="no session listens"):
        mcp_server.connect(tmp_path / "s")
    long = mcp_server.ask(tmp_path / "s", "propose", {"source": "x" * MAX_LINE_BYTES})
    assert "the limit is 4,194,304" in long["error"]


def test_half_a_character_does_not_lose_a_message() -> None:
    assert json.loads(mcp_server.mended('{"a": "x\\ud83d", "b": "\\ud83d\\ude00"}\n')) == {"a": "x?", "b": "\U0001f600"}
    for line in ('{"a": 1}\n', "\\ud83d, no JSON\n", "[" * 100_000 + "\\ud83d\n"):
        assert mcp_server.mended(line) == line


def given_up(path: Path, value: float) -> socket.socket:
    """A connection that has sent its `propose` and waits."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    sock.sendall(json.dumps({**propose(value)[1], "op": "propose"}).encode() + b"\n")
    return sock


def test_what_nobody_waits_for_is_not_begun(tmp_path: Path) -> None:
    service = Service(tmp_path / "s")
    try:
        gone, waits = given_up(service.path, 2.0), given_up(service.path, 3.0)
        gone.close()
        asked = service.next(10.0)
        assert asked is not None and asked.arguments["hypothesis"] == "rate 3.0" and not asked.abandoned()
        assert service.next(0.0) is None
        waits.close()
        assert asked.abandoned()
        asked.refuse("over")
    finally:
        service.close()


_IMPATIENT = """
import json, pathlib, sys, time
from harness.mcp_server import ask
sys.path[:0] = sys.argv[3:]
from test_external import given_up, propose
path = pathlib.Path(json.loads(pathlib.Path(sys.argv[1]).read_text())["mcpServers"]["bpbench"]["args"][-1])
folder = pathlib.Path(sys.argv[2])
first = given_up(path, 2.0)
while not (folder / "runs").exists():
    time.sleep(0.01)
first.close()
given_up(path, 2.0).close()
retry = given_up(path, 2.0)
time.sleep(0.2)
(folder / "retried").touch()
print(retry.makefile().readline(), flush=True)
ask(path, *propose(4.0))
"""


class WaitingBench(HashedBench):
    """One run lasts until the program has tried again."""

    folder: Path

    def __init__(self, waits_in: str = "experiment-000") -> None:
        super().__init__()
        self.waits_in = waits_in

    def run(self, run_id: str, *rest: Any) -> Any:
        if run_id == self.waits_in:
            (self.folder / "runs").touch()
            deadline = time.monotonic() + 60
            while not (self.folder / "retried").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        return super().run(run_id, *rest)


def test_retries_of_a_call_that_was_given_up_are_no_experiments(tmp_path: Path) -> None:
    bench = WaitingBench()
    bench.folder = tmp_path
    here = Path(__file__).parent
    argv = (sys.executable, "-c", _IMPATIENT, "{mcp_config}", str(tmp_path), str(here), str(here.parent))
    state, _ = session(tmp_path, *argv, bench=bench)
    assert [item.hypothesis for item in state.experiments] == ["rate 2.0", "rate 4.0"] and state.closed
    refused = said(tmp_path)[0]["error"]
    assert "not run, and it cost nothing" in refused and "Experiment 1: " in refused


def test_several_proposals_at_once_are_one_experiment(tmp_path: Path) -> None:
    at_once = """
import time
from test_external import given_up
folder = pathlib.Path(sys.argv[2])
asking = [given_up(path, 3.0) for _ in range(12)]
time.sleep(1)
(folder / "retried").touch()
answers = [json.loads(sock.makefile().readline()) for sock in asking]
print(json.dumps({"refused": [answer["error"] for answer in answers if "error" in answer]}), flush=True)
ask(path, *propose(4.0))
"""
    bench = WaitingBench("experiment-001")
    bench.folder = tmp_path
    argv = (sys.executable, "-c", _PROPOSES_AND + at_once, "{mcp_config}", str(tmp_path))
    state, _ = session(tmp_path, *argv, experiments=3, bench=bench)
    assert [item.hypothesis for item in state.experiments] == ["rate 2.0", "rate 3.0", "rate 4.0"]
    refused = said(tmp_path)[0]["refused"]
    assert len(refused) == 11 and all("asked before the last experiment was over" in words for words in refused)


def test_a_cancelled_call_closes_its_connection_and_a_waiting_one_says_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_server, "PROGRESS_SECONDS", 0.05)
    service = Service(tmp_path / "s")
    told: list[float] = []

    async def report(seconds: float) -> None:
        told.append(seconds)

    async def main() -> None:
        calling = asyncio.create_task(mcp_server.call(service.path, "propose", {}, report))
        asked = await asyncio.to_thread(service.next, 10.0)
        assert asked is not None and not asked.abandoned()
        await asyncio.sleep(0.3)
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await calling
        await asyncio.sleep(0.1)
        assert asked.abandoned()
        asked.refuse("over")

    try:
        asyncio.run(main())
    finally:
        service.close()
    assert len(told) >= 2


def test_whatever_an_earlier_program_left_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "external").mkdir()
    (tmp_path / "external" / "home").write_text("no folder")
    (tmp_path / "external" / "work").symlink_to(tmp_path)
    state, _ = session(tmp_path, sys.executable, str(PROGRAM), "{mcp_config}", json.dumps([propose(2.0)]), "plain")
    assert len(state.experiments) == 1 and (tmp_path / "external" / "home").is_dir()
    assert not (tmp_path / "external" / "work").is_symlink()
