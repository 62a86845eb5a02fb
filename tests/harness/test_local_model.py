"""Sessions of a real local model, llama.cpp's server with random weights, through LiteLLM: gibberish, and grammars."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from llm_bench import STOCK, made_line, run
from local_model import WINDOW_TOKENS, served, write_model

from harness.agents import _answer
from harness.compose import compose
from harness.config import Config
from harness.fold import fold
from harness.journal import read
from harness.llm.client import LiteLLM
from harness.llm.exchange import UNREADABLE
from harness.records import SessionState

for module in ("xllamacpp", "gguf"):
    pytest.importorskip(module, reason="llama.cpp's server is missing: pip install xllamacpp gguf")

MAX_OUTPUT_TOKENS = 1500
TINY = ("task=tiny", "backend=null", "data=synthetic", "task.baseline_seeds=2", "task.confirm_seeds=2")
LOCAL = ("agent=llm", "llm=llamacpp", f"llm.context_tokens={WINDOW_TOKENS}", "agent.options.repairs=2")
# All tokens may be drawn: what a random model likes best is no better than the rest.
ANY = ("+llm.extra.top_k=0", "+llm.extra.min_p=0", "llm.top_p=1", "session.early_stop=false")
CALLS = (*ANY, "+llm.extra.tool_choice=required", "+llm.extra.parallel_tool_calls=false")
EDITS = r"""
root ::= "HYPOTHESIS: " [a-z ]{8,40} "\nNOTE: " [a-z]{4,12} "\n<<<<<<< SEARCH\n" edit ">>>>>>> REPLACE\n"
edit ::= "from trainer import lab\n=======\nfrom trainer import lab\n\nTRIED = " [1-9] [0-9]{3} "\n"
"""


@pytest.fixture(scope="module")
def ascii_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(write_model(tmp_path_factory.mktemp("model") / "ascii.gguf", num_bytes=128)) as url:
        yield url


@pytest.fixture(scope="module")
def bytes_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(write_model(tmp_path_factory.mktemp("model") / "bytes.gguf")) as url:
        yield url


def overrides(url: str, *more: str) -> list[str]:
    where = (f"llm.api_base={url}/v1", f"llm.max_output_tokens={MAX_OUTPUT_TOKENS}", "llm.seed=0")
    return [*TINY, *LOCAL, *where, "session.experiments=3", *more]


def hold(folder: Path, config: Config) -> SessionState:
    """A session with the real model and a bench that scores by hashes."""
    return run(folder, config, made_line(folder, LiteLLM(config.llm, environment={}), []))


def finished(folder: Path) -> list[dict[str, Any]]:
    return [record.data for record in read(folder / "journal.jsonl")[0] if record.type == "llm_call_finished"]


def replies(folder: Path) -> list[dict[str, Any]]:
    """What was said, in order; each is there under the hash that the journal has."""
    folder, calls = folder / "llm" / "replies", finished(folder)
    return [json.loads((folder / f"{data['reply_sha256']}.json").read_text()) for data in calls]


def test_gibberish_is_a_session_of_failed_proposals(bytes_url: str, tmp_path: Path) -> None:
    state = hold(tmp_path, compose(overrides(bytes_url, "session.experiments=1")))
    assert state.closed and len(state.experiments) == 1
    assert all(item.source is None and item.reason and not item.kept for item in state.experiments)
    said, calls = replies(tmp_path), finished(tmp_path)
    assert len(calls) == state.llm.num_calls == 3  # two repairs before it is spent
    assert state.llm.outcomes == {"ok": 3}
    for data, reply in zip(calls, said, strict=True):
        if data["finish"] == UNREADABLE:  # the mark of a call, drawn by chance
            assert data["assumed"] and data["completion_tokens"] == MAX_OUTPUT_TOKENS
        else:
            assert not data["assumed"] and data["completion_tokens"] == reply["usage"]["completion_tokens"]
    assert state.llm.prompt_tokens == sum(data["prompt_tokens"] for data in calls)
    assert state.llm.cost_usd is None  # nobody said what the machine costs


def test_a_grammar_of_tool_calls_makes_valid_ones(ascii_url: str, tmp_path: Path) -> None:
    state = hold(tmp_path, compose(overrides(ascii_url, *CALLS)))
    assert state.closed and len(state.experiments) == 3 and state.llm.outcomes == {"ok": state.llm.num_calls}
    whole = [reply for reply in replies(tmp_path) if reply["finish"] != "length"]
    assert len(whole) >= 3 and all(reply["calls"] for reply in whole)
    known = (_answer.PROPOSE, _answer.STOP, _answer.SMOKE, _answer.READ, _answer.COMPARE)
    for call in (call for reply in whole for call in reply["calls"]):
        assert call["name"] in known and isinstance(json.loads(call["arguments"]), dict)
    assert all(data["sent"]["tool_choice"] == "required" for data in finished(tmp_path))


def test_a_grammar_of_edits_makes_experiments(ascii_url: str, tmp_path: Path) -> None:
    config = compose(overrides(ascii_url, *ANY, "llm.tools=false"))
    config.llm.extra["grammar"] = EDITS
    state = hold(tmp_path, config)
    assert state.closed and state.llm.num_calls == 3
    for item in state.experiments:
        assert item.source is not None and item.source != STOCK and "\nTRIED = " in item.source
        assert item.val_bpb is not None and item.note


@pytest.mark.slow
def test_calls_that_the_server_cannot_read_are_spent_like_other_bad_answers(bytes_url: str, tmp_path: Path) -> None:
    """Random bytes in a call are no UTF-8: llama.cpp answers some of these with status 500."""
    state = hold(tmp_path, compose(overrides(bytes_url, *CALLS)))
    assert state.closed and len(state.experiments) == 3 and state.llm.outcomes == {"ok": state.llm.num_calls}
    unreadable = [data for data in finished(tmp_path) if data["finish"] == UNREADABLE]
    assert unreadable and all(data["assumed"] for data in unreadable)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_line_killed_and_resumed(bytes_url: str, bpbench_home: Path, tmp_path: Path) -> None:
    folder, quiet = tmp_path / "it", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    bpbench = [sys.executable, "-m", "harness.cli"]
    start = ["run", *overrides(bytes_url), f"session.root={tmp_path}", "session.name=it"]
    process = subprocess.Popen([*bpbench, *start], stdin=subprocess.DEVNULL, **quiet)  # type: ignore[call-overload]
    journal = folder / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"llm_call_finished") >= 4):
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(below, timeout=30)[1]
    before = finished(folder)
    subprocess.run([*bpbench, "resume", str(folder)], env=dict(os.environ), check=True, **quiet)  # type: ignore[call-overload]
    state = fold(read(journal)[0])
    assert state.closed and len(state.experiments) == 3 and all(item.source is None for item in state.experiments)
    assert finished(folder)[: len(before)] == before
    lost = state.llm.outcomes.get("lost", 0)
    assert state.llm.outcomes == {"ok": 9, **({"lost": lost} if lost else {})} and lost <= 1
    assert len(replies(folder)) == 9
