"""The workflow's own command on a good folder and on a tampered one, and what the workflows may do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import publishing
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"


def workflow(name: str) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return loaded


def steps(loaded: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in loaded["jobs"].values() for step in job["steps"]]


def check_command(job: str) -> str:
    """The `run:` line of a job's check, as it stands there."""
    listed = [step.get("run", "") for step in workflow("leaderboard.yml")["jobs"][job]["steps"]]
    found = [line for line in listed if line.startswith("bpbench check ")]
    assert len(found) == 1
    return found[0]


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


def test_the_workflows_command_accepts_good_entries_and_refuses_tampered_ones(checkouts: Path) -> None:
    command = check_command("entries")
    good = run(command, checkouts)
    assert (good.returncode, good.stderr) == (0, "") and "2 entries" in good.stdout
    bundle = next((checkouts / "proposed" / "leaderboard" / "entries").glob("*-s1-*.bundle.tar"))
    content = bundle.read_bytes()
    at = content.index(b'"mean_bpb":0.0') + len(b'"mean_bpb":0.')
    bundle.write_bytes(content[:at] + b"9" + content[at + 1 :])
    bad = run(command, checkouts)
    assert bad.returncode == 1 and bundle.name.partition(".")[0] in bad.stderr


def test_the_workflows_command_refuses_what_hides_a_published_entry(checkouts: Path) -> None:
    for path in (checkouts / "proposed" / "leaderboard" / "entries").iterdir():
        path.unlink()
    bad = run(check_command("entries"), checkouts)
    assert bad.returncode == 1 and "may not vanish" in bad.stderr


def test_the_check_of_the_main_branch(checkouts: Path) -> None:
    assert run(check_command("site"), checkouts / "proposed").returncode == 0
    next((checkouts / "proposed" / "leaderboard" / "entries").glob("*-s0-*.json")).unlink()
    assert run(check_command("site"), checkouts / "proposed").returncode == 1


def test_a_push_is_compared_with_what_was_there_before(checkouts: Path) -> None:
    """Two steps, as the workflow has them: the first leaves the folder's name to the second."""
    steps_of = workflow("leaderboard.yml")["jobs"]["site"]["steps"]
    before = next(step for step in steps_of if step.get("name") == "What was published before")
    assert before["env"] == {"BEFORE": "${{ github.event.before }}"}
    here, told = checkouts / "proposed", checkouts / "env"
    git = "git -c user.name=Ann -c user.email=ann@example.org"
    assert run(f"git init -q . && git add . && {git} commit -qm one", here).returncode == 0
    known = {"RUNNER_TEMP": str(checkouts / "temp"), "GITHUB_ENV": str(told)}
    for path in (here / "leaderboard" / "entries").glob("*-s1-*"):
        path.unlink()
    commit = run("git rev-parse HEAD", here).stdout.strip()
    told.touch()
    assert run(before["run"], here, **known, BEFORE="0" * 40).returncode == 0 and told.read_text() == ""
    assert run(check_command("site"), here).returncode == 0  # with nothing before there is nothing to miss
    assert run(before["run"], here, **known, BEFORE=commit).returncode == 0
    base = told.read_text().strip().removeprefix("BASE=")
    bad = run(check_command("site"), here, BASE=base)
    assert bad.returncode == 1 and "may not vanish" in bad.stderr


def test_the_lists_of_the_branch_decide_and_who_proposes_is_told() -> None:
    loaded = workflow("leaderboard.yml")
    paths = loaded[True]["pull_request"]["paths"]
    assert {"leaderboard/reproducers.txt", "leaderboard/official.json"} < set(paths)
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
    checkouts = {step["with"]["path"]: step["with"] for step in job["steps"] if "checkout" in step.get("uses", "")}
    assert checkouts["base"]["ref"] == "${{ github.event.pull_request.base.sha }}" and set(checkouts) == {
        "base",
        "proposed",
    }
    installed = [step["run"] for step in job["steps"] if "pip install" in step.get("run", "")]
    assert len(installed) == 1 and installed[0].endswith("-e ./base")
    for name in ("site", "deploy"):
        assert loaded["jobs"][name]["if"] == "github.event_name == 'push'"


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
