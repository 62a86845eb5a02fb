from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli
from harness.cli import find_session, main
from harness.compose import compose
from harness.device import Device
from harness.errors import ConfigError
from harness.journal import Journal
from harness.llm import cli as cli_llm
from harness.session_folder import check_path

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    environment = {**ours, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["show", "nothing"]])
def test_the_command_line_starts_without_heavy_imports(arguments, tmp_path):
    script = f"""
import json, sys
from harness.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))
"""
    done = python("-c", script, cwd=tmp_path)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "argparse" in loaded
    assert not loaded & {
        "torch",
        "litellm",
        "hydra",
        "omegaconf",
        "numpy",
        "optuna",
        "wandb",
        "rich",
        "git",
        "matplotlib",
    }


def test_a_complaint_holds_no_escape_sequence(capsys):
    cli._report(ConfigError("a server\x1b]0;title\x07 said\n\x1b[31mno\x9b2J ##[stop]"))
    assert capsys.readouterr().err == "bpbench: a server said no # #[stop]\n"


def test_the_end_of_the_input_is_no_agreement(monkeypatch):
    def ended(_prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    assert not cli_llm._agrees()
    monkeypatch.setattr("builtins.input", lambda _prompt: "Yes ")
    assert cli_llm._agrees()


def test_a_composed_configuration_needs_no_torch(tmp_path):
    script = "import sys; from harness.cli import main; main(['config']); assert 'torch' not in sys.modules, 'torch'"
    done = python("-c", script, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_is_one_line_and_status_2(tmp_path):
    done = python("-m", "harness.cli", "run", "agent=tpee", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "bpbench: unknown agent=tpee; did you mean 'tpe'? "
        "valid: claude_code, cmaes, codex, external, llm, noop, random, replay, scripted, tpe\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--fast"], ["show"], ["show", "a", "b"]])
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: bpbench" in capsys.readouterr().err


def test_config_prints_the_whole_composition(capsys):
    assert main(["config", "agent=random", "session.experiments=9"]) == 0
    printed = capsys.readouterr().out
    assert "agent:\n  name: random\n" in printed
    assert "  experiments: 9\n" in printed


def test_overrides_may_stand_on_both_sides_of_the_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "agent=noop", "-m", "agent=tpee"]) == 2
    assert "unknown agent=tpee" in capsys.readouterr().err


def test_a_session_is_found_by_path_or_by_name(tmp_path):
    folder = tmp_path / "sessions" / "first"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").touch()
    assert find_session(str(folder), tmp_path) == folder
    assert find_session("first", tmp_path / "sessions") == folder
    with pytest.raises(ConfigError, match=r"no session 'second'.*the latest in .*: first$"):
        find_session("second", tmp_path / "sessions")
    with pytest.raises(ConfigError, match=r": none$"):
        find_session("first", tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_session_that_is_stopped_says_how_to_go_on(number, tmp_path):
    command = ["run", "task=tiny", "backend=null", "data=synthetic", "agent=noop", "session.name=stopped"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BPBENCH_HOME": str(tmp_path / "home")}
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "harness.cli", *command],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Tests that run in the background of a script inherit an ignored SIGINT, which Python leaves ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no threads here
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()  # preparing: the session is under way
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("bpbench: stopped"), errors
    assert "Traceback" not in errors, errors


def test_what_may_cost_money_is_agreed_to_first(tmp_path):
    command = ("-m", "harness.cli", "run", "agent=llm", "llm=claude_haiku")
    done = python(*command, cwd=tmp_path, ANTHROPIC_API_KEY="a-key-never-used")
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    asked, refused = done.stderr.splitlines()
    assert "about $0." in asked and "at most $" in asked and "prices of 2026-11-25" in asked
    assert refused == "bpbench: this session may cost money and there is no terminal to ask on: add --yes to agree"


def test_a_missing_key_is_said_before_anything_is_made(tmp_path):
    done = python("-m", "harness.cli", "run", "--yes", "agent=llm", "llm=claude_haiku", cwd=tmp_path)
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    assert done.stderr.splitlines()[-1].endswith("set the environment variable ANTHROPIC_API_KEY")


@pytest.mark.parametrize("arguments", ["config", "power --sd 0.01 --gap 0.01", "leaderboard ."])
def test_a_reader_that_leaves_early_gets_no_traceback(arguments, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "leaderboard.cli", *arguments.split()],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=write,
        stderr=subprocess.PIPE,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (cli.EXIT_UNREAD, "")


DRY = ["task=tiny", "backend=null", "data=synthetic", "agent=noop", "session.name=it"]


def test_what_the_system_refuses_is_one_line(tmp_path, monkeypatch, capsys, bpbench_home):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sessions").write_text("a file in the way")
    assert main(["run", *DRY]) == cli.EXIT_ERROR
    complaint = capsys.readouterr().err.splitlines()[-1]
    assert complaint.startswith("bpbench: sessions") and "mend that" in complaint


def test_a_session_that_never_opened_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sessions/it").mkdir(parents=True)
    (tmp_path / "sessions/it/journal.jsonl").touch()
    assert main(["resume", "it"]) == cli.EXIT_ERROR
    assert "never opened: start it again" in capsys.readouterr().err


def test_no_model_is_asked_for_a_session_whose_name_is_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sessions/it/runs").mkdir(parents=True)
    monkeypatch.setattr(cli_llm, "ask_once", lambda _: pytest.fail("it was asked"))
    where = ["llm=openai_compatible", "llm.model=openai/it", "llm.api_base=http://localhost/v1"]
    assert main(["run", "--yes", "agent=llm", *where, "session.name=it"]) == cli.EXIT_USAGE
    assert "exists already; resume it" in capsys.readouterr().err


def test_nothing_is_left_of_a_session_that_could_not_be_opened(tmp_path, monkeypatch, capsys, bpbench_home):
    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Journal, "create", full)
    assert main(["run", *DRY]) == cli.EXIT_ERROR
    assert "journal.jsonl: No space left on device; mend that" in capsys.readouterr().err
    assert list((tmp_path / "sessions").iterdir()) == []


@pytest.mark.parametrize("name", ["My Projects", "it's", "a:b"])
def test_a_path_that_would_be_taken_apart_is_refused_before_hours(name):
    device = Device("cpu", 2, "float32", {"has_compiler": True}, {})
    task = compose(["task=nano", "agent=noop"]).task
    folder = Path("/home/me") / name / "sessions"
    with pytest.raises(ConfigError, match=r"the folder of sessions is /home/me/.*: "):
        check_path(folder, task, device)
    check_path(Path("/home/me/sessions"), task, device)
    if ":" not in name:  # only compilers take it apart
        check_path(folder, task, replace(device, identity={"has_compiler": False}))
