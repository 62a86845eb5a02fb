"""The workflow's own command on a good folder and on a tampered one, and what the workflows may do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import publishing
import pytest
import yaml

from leaderboard import cli

Checked = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def workflow(name: str) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return loaded


def steps(loaded: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in loaded["jobs"].values() for step in job["steps"]]


def check_command(job: str, place: int = 0) -> str:
    """The `run:` line of a job's check, as it stands there."""
    listed = [step.get("run", "") for step in workflow("leaderboard.yml")["jobs"][job]["steps"]]
    found = [line for line in listed if line.startswith("bpbench check ")]
    assert len(found) == {"entries": 2, "site": 1}[job]
    return found[place]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workflow")
    for seed in (0, 1):
        publishing.publish(root / "entries", publishing.packed(root, seed))
    return root / "entries"


@pytest.fixture
def checkouts(published: Path, tmp_path: Path) -> Path:
    """Where the workflow's steps run: one entry is published, a second one is proposed."""
    for name in ("base", "proposed"):
        shutil.copytree(published, tmp_path / name / "leaderboard" / "entries")
    for name in ("base", "proposed"):
        publishing.official_file(tmp_path / name / "leaderboard")
        (tmp_path / name / "leaderboard" / "reproducers.txt").write_text("ann\n")
    for path in (tmp_path / "base" / "leaderboard" / "entries").glob("*-s1-*"):
        path.unlink()
    return tmp_path


def run(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BPBENCH_HOME": str(folder / "home"),
        "AUTHOR": "ann",
        **more,
    }
    return subprocess.run(
        ["bash", "-e", "-c", command], cwd=folder, env=environment, text=True, capture_output=True, check=False
    )


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Checked:
    """`run` for a line with `bpbench` in it, in this process: a shell says which arguments it would get."""

    def made(command: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
        told = run('bpbench() { printf "%s\\0" "$@"; }\n' + command, folder, **more)
        arguments = told.stdout.split("\0")[:-1]
        assert told.returncode == 0 and arguments[0] == "check"
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("BPBENCH_HOME", str(folder / "home"))
            capsys.readouterr()
            status = cli.main(arguments)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return made


def test_the_workflows_command_accepts_good_entries_and_refuses_tampered_ones(
    checkouts: Path, checked: Checked
) -> None:
    command = check_command("entries")
    good = run(command, checkouts)
    assert (good.returncode, good.stderr) == (0, "") and "2 entries" in good.stdout
    bundle = next((checkouts / "proposed" / "leaderboard" / "entries").glob("*-s1-*.bundle.tar"))
    content = bundle.read_bytes()
    at = content.index(b'"mean_bpb":0.0') + len(b'"mean_bpb":0.')
    bundle.write_bytes(content[:at] + b"9" + content[at + 1 :])
    bad = checked(command, checkouts)
    assert bad.returncode == 1 and bundle.name.partition(".")[0] in bad.stderr


def test_what_a_proposed_list_would_let_count_is_examined_before_it_is_accepted(
    checkouts: Path, checked: Checked
) -> None:
    entries = checkouts / "proposed" / "leaderboard" / "entries"
    name = next(entries.glob("*-s0-*.json")).stem
    assert checked(check_command("entries", 1), checkouts).returncode == 0
    (entries / "reproductions").mkdir()
    (entries / "reproductions" / f"{name}.ann.01234567.jsonl").write_text("no journal\n")
    assert checked(check_command("entries"), checkouts).returncode == 0  # for the list that decides, ann is nobody
    bad = checked(check_command("entries", 1), checkouts)
    assert bad.returncode == 1 and f"{name}.ann.01234567.jsonl" in bad.stderr


def test_the_workflows_command_refuses_what_hides_a_published_entry(checkouts: Path, checked: Checked) -> None:
    for path in (checkouts / "proposed" / "leaderboard" / "entries").iterdir():
        path.unlink()
    bad = checked(check_command("entries"), checkouts)
    assert bad.returncode == 1 and "may not vanish" in bad.stderr


def test_the_check_of_the_main_branch(checkouts: Path, checked: Checked) -> None:
    assert checked(check_command("site"), checkouts / "proposed").returncode == 0
    next((checkouts / "proposed" / "leaderboard" / "entries").glob("*-s0-*.json")).unlink()
    assert checked(check_command("site"), checkouts / "proposed").returncode == 1


def test_a_push_is_compared_with_what_was_there_before(checkouts: Path, checked: Checked) -> None:
    """Two steps, as the workflow has them: the first leaves the folder's name to the second."""
    steps_of = workflow("leaderboard.yml")["jobs"]["site"]["steps"]
    before = next(step for step in steps_of if step.get("name") == "What was published before")
    here, told = checkouts / "proposed", checkouts / "env"
    git = "git -c user.name=Ann -c user.email=ann@example.org"
    assert run(f"git init -q . && git add . && {git} commit -qm one", here).returncode == 0
    known = {"RUNNER_TEMP": str(checkouts / "temp"), "GITHUB_ENV": str(told)}
    for path in (here / "leaderboard" / "entries").glob("*-s1-*"):
        path.unlink()
    commit = run("git rev-parse HEAD", here).stdout.strip()
    told.touch()
    assert run(before["run"], here, **known, BEFORE="0" * 40).returncode == 0 and told.read_text() == ""
    assert checked(check_command("site"), here).returncode == 0  # with nothing before there is nothing to miss
    assert run(before["run"], here, **known, BEFORE=commit).returncode == 0
    base = told.read_text().strip().removeprefix("BASE=")
    bad = checked(check_command("site"), here, BASE=base)
    assert bad.returncode == 1 and "may not vanish" in bad.stderr


def test_the_lists_of_the_branch_decide_and_who_proposes_is_told() -> None:
    loaded = workflow("leaderboard.yml")
    assert loaded[True]["pull_request"] is None, "a filter of paths would leave pull requests unchecked"
    (step,) = (step for step in loaded["jobs"]["entries"]["steps"] if step.get("name") == "Check the entries")
    assert step["env"] == {"AUTHOR": "${{ github.event.pull_request.user.login }}"}
    assert '--author "$AUTHOR"' in step["run"] and "--official base/leaderboard/official.json" in step["run"]


def test_a_pull_request_gets_no_rights_and_brings_no_checker() -> None:
    loaded = workflow("leaderboard.yml")
    triggers = loaded[True]  # YAML 1.1 reads `on` so
    assert set(triggers) == {"pull_request", "push"} and triggers["push"] == {"branches": ["main"]}
    assert loaded["permissions"] == {"contents": "read"}
    job = loaded["jobs"]["entries"]
    assert "permissions" not in job and job["if"] == "github.event_name == 'pull_request'"
    (checkout,) = (step["with"] for step in job["steps"] if "checkout" in step.get("uses", ""))
    assert "ref" not in checkout and checkout["fetch-depth"] == 2, "the merge, and its first parent"
    installed = [step["run"] for step in job["steps"] if "pip install" in step.get("run", "")]
    assert len(installed) == 1 and installed[0].endswith("-e ./base")
    for name in ("site", "deploy"):
        assert loaded["jobs"][name]["if"].startswith("github.event_name == 'push'")
    assert loaded["jobs"]["site"]["permissions"] == {"contents": "read", "actions": "read"}


def test_the_branch_that_decides_is_the_first_parent_of_the_merge(checkouts: Path) -> None:
    """As GitHub makes it: the branch first, the proposal second; the step of the workflow takes the first."""
    steps_of = workflow("leaderboard.yml")["jobs"]["entries"]["steps"]
    (step,) = (step for step in steps_of if step.get("name") == "What is published, and the checker")
    shutil.rmtree(checkouts / "base")
    git = "git -c user.name=Ann -c user.email=ann@example.org"
    made = f"""
    git init -q -b main . && echo then > when && git add . && {git} commit -qm then
    git switch -qc proposal && echo proposed > what && git add . && {git} commit -qm proposed
    git switch -q main && echo now > when && git add . && {git} commit -qm now
    git switch -q --detach && {git} merge -q -m merge proposal"""
    assert run(made, checkouts / "proposed").returncode == 0
    assert run(step["run"], checkouts, GITHUB_WORKSPACE=str(checkouts)).returncode == 0
    assert (checkouts / "base" / "when").read_text() == "now\n" and not (checkouts / "base" / "what").exists()


@pytest.mark.parametrize(("last_good", "known"), [("", False), ("HEAD", True)])
def test_a_push_is_compared_with_the_last_good_one(checkouts: Path, last_good: str, known: bool) -> None:
    steps_of = workflow("leaderboard.yml")["jobs"]["site"]["steps"]
    (step,) = (step for step in steps_of if step.get("name") == "The last push that was checked and found good")
    assert step["env"] == {"GH_TOKEN": "${{ github.token }}"}
    here, told = checkouts / "proposed", checkouts / "env"
    git = "git -c user.name=Ann -c user.email=ann@example.org"
    assert run(f"git init -q . && git add . && {git} commit -qm one", here).returncode == 0
    commit = run(f"git rev-parse {last_good}", here).stdout.strip() if known else ""
    program = checkouts / "bin" / "gh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{commit}'\n")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    told.touch()
    assert run(step["run"], here, PATH=path, GITHUB_ENV=str(told), GITHUB_REPOSITORY="a/b").returncode == 0
    assert told.read_text() == f"BEFORE={commit}\n"


@pytest.mark.parametrize("name", ["ci.yml", "leaderboard.yml"])
def test_actions_are_pinned_and_no_text_of_a_stranger_reaches_a_shell(name: str) -> None:
    loaded = workflow(name)
    assert loaded["permissions"] == {"contents": "read"} and "pull_request_target" not in loaded[True]
    for step in steps(loaded):
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
        assert "${{" not in step.get("run", "")


def test_the_tests_run_as_the_readme_says() -> None:
    commands = "\n".join(step.get("run", "") for step in steps(workflow("ci.yml")))
    for words in ("python -m venv .venv", "-e '.[dev]'", ".venv/bin/pytest", "ruff check .", "mypy"):
        assert words in commands
