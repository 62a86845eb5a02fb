"""What trackers are told, and that none of them can harm a session. No W&B here: see test_tracking_wandb.py."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import synthetic_journal
from synthetic_journal import HOSTILE

from harness import tracking
from harness.compose import compose
from harness.config import TrackerConfig
from harness.errors import ConfigError, DataError
from harness.fold import apply, fold
from harness.journal import Journal, Record
from harness.records import SessionState
from harness.tracking import _content as content
from harness.tracking import wandb
from harness.tracking._mirror import Mirror, Worker, verdict
from harness.tracking._wandb_worker import Journal as Tail

KEY = "0123456789abcdef" * 2 + "01234567"


def history(records: list[Record]) -> list[content.Row]:
    rows: list[content.Row] = []
    state = SessionState()
    for record in records:
        before, state = state, apply(state, record)
        rows += content.history(before, state, record)
    return rows


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*map(str, value), *(item for nested in value.values() for item in texts(nested))]
    if isinstance(value, list | tuple):
        return [item for nested in value for item in texts(nested)]
    return [value] if isinstance(value, str) else []


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return synthetic_journal.write(tmp_path / "journal.jsonl")


def test_the_folder_is_the_registry() -> None:
    assert tracking.available() == ["none", "wandb"]
    with pytest.raises(ConfigError, match=r"unknown tracker\.name 'wndb'; valid: none, wandb"):
        compose(["tracker.name=wndb"])
    assert compose([]).tracker.name == "none"
    assert compose(["tracker=wandb"]).tracker.name == "wandb"


def test_no_tracker_leaves_no_trace(tmp_path: Path, records: list[Record]) -> None:
    before = sorted(tmp_path.rglob("*"))
    tracker = tracking.load(TrackerConfig("none"), tmp_path)
    for record in records:
        tracker.on_record(record.to_dict())
    tracker.close()
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ConfigError, match="mirrors nothing"):
        tracking.mirror("none", tmp_path)


def test_every_experiment_is_in_history_and_table(records: list[Record]) -> None:
    state = fold(records)
    rows = [row for row in history(records) if row.get("experiment/number", 0)]
    assert [row["experiment/number"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.get("experiment/val_bpb") for row in rows] == [item.val_bpb for item in state.experiments]
    assert [row["experiment/status"] for row in rows] == ["ok", "ok", "crash", "ok", "invalid", "ok"]
    assert [row["experiment/kept"] for row in rows] == [1, 0, 0, 1, 0, 0]
    best = [row["experiment/incumbent_bpb"] for row in rows]
    assert best == sorted(best, reverse=True) and best[-1] == rows[3]["experiment/val_bpb"]
    table = [dict(zip(content.COLUMNS, line, strict=True)) for line in content.table(state)]
    assert [line["hypothesis"] for line in table] == [
        "unmodified train.py",
        *(item.hypothesis for item in state.experiments),
    ]
    assert table[5]["reason"] == "train.py line 12: invalid syntax"


def test_every_row_has_its_axis(records: list[Record]) -> None:
    rows = history(records)
    assert {name.split("/")[0] for row in rows for name in row} == {"train", "baseline", "experiment", "confirm"}
    for row in rows:
        (family,) = {name.split("/")[0] for name in row}
        assert content.AXES[f"{family}/*"] in row


def test_each_run_has_its_training_curve(records: list[Record]) -> None:
    state = fold(records)
    rows = history(records)
    drawn = [(row["train/tokens"], row["train/rerun-003"]) for row in rows if "train/rerun-003" in row]
    rerun = state.experiments[3].rerun
    assert rerun is not None and drawn == [(point.tokens, point.loss) for point in rerun.curve]
    curves = {name for row in rows for name in row if name.startswith("train/") and "-" in name}
    assert curves == {
        f"train/{record.data['role']}-{record.data['index']:03d}"
        for record in records
        if record.type == "run_finished" and record.data["result"]["curve"]
    }


def test_the_summary_has_gain_verdict_and_status(records: list[Record]) -> None:
    state = fold(records)
    assert state.gain is not None
    final = content.final(state)
    assert final["status"] == "finished"
    assert final["verdict"].startswith("Confirmed gain: +0.0443 bpb")
    assert [final[f"gain_{name}"] for name in ("bpb", "low_bpb", "high_bpb", "pairs")] == [
        *(state.gain.mean_bpb, state.gain.low_bpb, state.gain.high_bpb),
        3,
    ]
    confirmed = next(number for number, record in enumerate(records) if record.type == "confirmed")
    unfinished = content.final(fold(records[:confirmed]))
    assert unfinished["status"].startswith("unfinished")
    assert "gain_bpb" not in unfinished and unfinished["experiments_done"] == 6


def test_sessions_of_a_study_share_a_group_and_no_id(tmp_path: Path) -> None:
    def opened(name: str, **changes: Any) -> tuple[str, str]:
        _, first, _ = next(synthetic_journal.events())
        (tmp_path / name).mkdir()
        with Journal.create(tmp_path / name / "journal.jsonl", synthetic_journal.Clock()) as journal:
            record = journal.append("session_open", **{**first, **changes})
        return content.run_id(record), content.opening(fold([record]), name)["group"]

    agent = {"task": {"name": "demo"}, "session": {"seed": 0}}
    runs = [
        opened("a", config={**agent, "agent": {"name": "tpe"}}),
        opened("b", config={**agent, "agent": {"name": "tpe"}, "session": {"seed": 1}}),
        opened("c", config={**agent, "agent": {"name": "tpe", "options": {"block": 3}}}),
        opened("d", config={**agent, "agent": {"name": "tpe"}}, key={"task": "demo", "protocol": 2}),
    ]
    ids, groups = zip(*runs, strict=True)
    assert len(set(ids)) == 4
    assert groups[0] == groups[1] and len(set(groups)) == 3


def test_what_agents_wrote_leaves_clean_and_short(tmp_path: Path) -> None:
    records = synthetic_journal.write(tmp_path / "journal.jsonl", hostile=True)
    state = fold(records)
    sent = [content.opening(state, HOSTILE[2]), content.final(state), content.table(state), history(records)]
    json.dumps(sent, allow_nan=False)
    found = texts(sent)
    assert any("alert(1)" in item for item in found)
    for item in found:
        assert len(item) <= content.MAX_LOG_CHARS + 100
        assert item.replace("\n", "").isprintable()


def test_numbers_that_no_reader_keeps_are_left_out() -> None:
    assert content.clean({"a": 10**400, "b": float("nan"), "c": 2**40, "d": [True, None]}) == {
        **{"a": None, "b": None, "c": 2**40},
        "d": [True, None],
    }
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    assert "bottom" not in json.dumps(content.clean(deep))
    assert len(content.clean(dict.fromkeys(map(str, range(10_000)), 0))) < 1000


@pytest.mark.parametrize(
    ("environment", "netrc", "expected"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": KEY}, "", "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "", "offline"),
        ({}, f"machine api.wandb.ai login user password {KEY}\n", "online"),
        ({}, f"machine example.org login user password {KEY}\ndefault login a password b\n", "offline"),
        ({"WANDB_BASE_URL": "http://127.0.0.1:9"}, f"machine 127.0.0.1:9 login user password {KEY}\n", "online"),
        ({}, "not a netrc file", "offline"),
    ],
)
def test_online_only_with_a_key(environment: dict[str, str], netrc: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(netrc)
    assert wandb.mode({**environment, "HOME": str(tmp_path)}) == expected


def test_what_wandb_was_told_on_its_own_command_line_is_kept_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wandb login --host` and `wandb offline` write files, not variables."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".netrc").write_text(f"machine wandb.example.org login user password {KEY}\n")
    own = tmp_path / ".config" / "wandb"
    own.mkdir(parents=True)
    (own / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
    home = {"HOME": str(tmp_path)}
    assert wandb.mode(home) == "online"
    assert wandb.worker_environment(home, tmp_path)["WANDB_BASE_URL"] == "https://wandb.example.org"
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode = offline\n")
    assert wandb.mode(home) == "offline" and wandb.mode({**home, "WANDB_MODE": "online"}) == "online"
    (tmp_path / "wandb" / "settings").write_bytes(b"\xff no settings")
    assert wandb.mode(home) == "online"


def test_no_secret_and_no_folder_of_the_configuration_leaves(records: list[Record]) -> None:
    state = fold(records)
    llm = {"model": "m", "api_base": "https://me:pass@host.example:8/v1", "extra": {"extra_headers": {"A": "hidden"}}}
    own = {"llm": llm, "session": {"root": "/home/me/secret/sessions"}, "data": {"options": {"path": "/home/me/texts"}}}
    told = content.config(replace(state, config={**state.config, **own}))
    assert told["llm"]["extra"] == ["extra_headers"] and told["llm"]["api_base"] == "host.example"
    assert told["session"]["root"] == "sessions" and told["data"]["options"]["path"] == "texts"
    argv = ["/home/me/bin/my-agent", "--key=hidden", "-p", "{prompt}", "--model", "hidden", "-khidden"]
    options = {"argv": argv, "arguments": ["hidden", "--budget"], "environment": ["A_KEY", "B=hidden"], "repairs": 3}
    for agent in (options, {"session": "/home/me/sessions/one"}, {"patches": "/home/me/edits"}):
        own |= {"agent": {"name": "external", "options": agent}}
        opened = {**state.opened, "researcher": agent}
        told = content.config(replace(state, config={**state.config, **own}, opened=opened))
        assert told["agent"]["options"] == told["researcher"]
        assert not any(word in json.dumps(told) for word in ("hidden", "pass@", "/home/me"))
        if agent is options:
            names = {"argv": ["my-agent", "--key", "-p", "--model", "-k"], "arguments": ["--budget"]}
            assert told["researcher"] == {**names, "environment": ["A_KEY", "B"], "repairs": 3}


def test_tags_are_as_short_as_they_must_be(records: list[Record]) -> None:
    state = fold(records)
    named = {**state.config, "task": {"name": "t" * 200}}
    tags = content.opening(replace(state, config=named), "name")["tags"]
    assert tags and all(len(tag) <= 64 for tag in tags)


def test_stray_settings_of_wandb_do_not_reach_the_worker(tmp_path: Path) -> None:
    stray = {"WANDB_RUN_ID": "another", "WANDB_RESUME": "must", "WANDB_DIR": "/", "WANDB_ERROR_REPORTING": "true"}
    given = {"WANDB_PROJECT": "mine", "WANDB_ENTITY": "us", "PATH": "/bin", "HOME": str(tmp_path)}
    environment = wandb.worker_environment({**stray, **given}, tmp_path)
    assert given.items() <= environment.items()
    assert not {"WANDB_RUN_ID", "WANDB_RESUME", "WANDB_DIR"} & set(environment)
    assert environment["WANDB_ERROR_REPORTING"] == "false"
    assert wandb.worker_environment({"HOME": str(tmp_path)}, tmp_path)["WANDB_PROJECT"] == "bpbench"


def test_following_a_journal_gives_its_records(tmp_path: Path, records: list[Record]) -> None:
    whole = (tmp_path / "journal.jsonl").read_bytes()
    path = tmp_path / "growing.jsonl"
    path.touch()
    tail, found = Tail(path), []
    for start in range(0, len(whole), 10_007):
        with path.open("ab") as file:
            file.write(whole[start : start + 10_007])
        found += tail.read()
    assert found == records
    assert tail.read() == []


def script(tmp_path: Path, code: str) -> Worker:
    command = (sys.executable, "-I", "-S", "-c", code)
    return Worker("wandb", command, {}, tmp_path / "wandb" / "mirror.log", "`bpbench track s` mirrors it again")


def feed(mirror: Mirror, records: list[Record]) -> None:
    for record in records:
        mirror.on_record(record.to_dict())


def started(mirror: Mirror) -> Any:
    assert mirror._process is not None
    return mirror._process


FAULTS = {
    "said": ('print(\'{"fault": "CommError: \\\\u001b[31mno"}\', flush=True)', "CommError: no"),
    "uncaught": ("raise RuntimeError('out of it')", "ended with status 1 (RuntimeError: out of it)"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "ended with signal 9"),
    "silent": ("import sys; print('hello'); sys.exit(3)", "ended with status 3"),
}


@pytest.mark.parametrize(("code", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_once(code: str, expected: str, tmp_path: Path, records: list[Record]) -> None:
    said: list[str] = []
    mirror = Mirror(script(tmp_path, code), said.append)
    feed(mirror, records[:1])
    started(mirror).wait()
    feed(mirror, records)
    mirror.close()
    (line,) = said
    assert line.startswith(f"wandb: {expected}" if code.startswith("print") else "wandb: its process")
    assert expected in line and line.endswith("the session is not affected, `bpbench track s` mirrors it again")


def test_a_process_that_cannot_start_is_told_once(tmp_path: Path, records: list[Record]) -> None:
    said: list[str] = []
    mirror = Mirror(Worker("wandb", (str(tmp_path / "missing"),), {}, tmp_path / "log", "try again"), said.append)
    feed(mirror, records)
    mirror.close()
    assert said == ["wandb: cannot start (No such file or directory); the session is not affected, try again"]


def test_the_end_of_the_session_reaches_the_process(tmp_path: Path, records: list[Record]) -> None:
    said: list[str] = []
    code = 'import sys; sys.stdin.read(); print(\'{"done": "all there"}\', flush=True)'
    mirror = Mirror(script(tmp_path, code), said.append)
    feed(mirror, records)
    assert started(mirror).poll() is None
    mirror.close()
    mirror.close()
    assert said == ["all there"]


def test_a_process_that_hangs_is_left_behind(tmp_path: Path, records: list[Record]) -> None:
    said: list[str] = []
    mirror = Mirror(script(tmp_path, "import time; time.sleep(600)"), said.append)
    feed(mirror, records)
    mirror.close()
    process = started(mirror)
    try:
        assert process.poll() is None
        assert said == [
            "wandb is finishing in the background; should it not, `bpbench track s` mirrors it again",
        ]
        assert os.getsid(process.pid) == process.pid, "Ctrl-C would reach it"
    finally:
        process.kill()
        process.wait()


def test_a_process_that_prints_without_end_costs_nothing(tmp_path: Path, records: list[Record]) -> None:
    said: list[str] = []
    mirror = Mirror(script(tmp_path, "while True: print('x' * 1000, flush=True)"), said.append)
    try:
        feed(mirror, records)
        assert psutil.Process(started(mirror).pid).is_running() and said == []
    finally:
        os.kill(started(mirror).pid, signal.SIGKILL)
        started(mirror).wait()


def test_half_a_line_is_no_verdict() -> None:
    assert verdict(b'{"done": "a') == (None, "")
    assert verdict(b'noise\n[1]\n{"other": 1}\n') == (None, "")
    assert verdict(b'noise\n{"fault": "a\\nb"}\n') == ("fault", "a b")


def test_what_cannot_be_mirrored_is_refused_in_one_line(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"--bundle .*missing: no such file"):
        tracking.mirror("wandb", tmp_path, tmp_path / "missing")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(ConfigError, match="WANDB_MODE=disabled"):
        tracking.mirror("wandb", tmp_path)
    (tmp_path / "journal.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="never opened"):
        tracking.mirror("wandb", tmp_path)
    assert not (tmp_path / "wandb").exists()
