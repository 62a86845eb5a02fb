from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.commits import commit_experiment, rebuild
from harness.errors import HarnessError
from harness.records import Experiment, RunResult, SessionState, Status
from harness.workspace import Workspace

NOW = 1_700_000_000.0
STATE = SessionState(opened={"stock_source": "a = 1\n"}, opened_at=NOW)
RUN = RunResult(Status.CRASH, "val")


def log(workspace: Workspace, ref: str) -> list[str]:
    return workspace.git("log", "--format=%s", ref).splitlines()


def test_the_branch_advances_on_a_keep_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    stock = workspace.commit_stock("a = 1\n", NOW)
    dropped = workspace.commit_experiment(0, "a = 2\n", "first", NOW, keep=False)
    kept = workspace.commit_experiment(1, "a = 3\n", "second", NOW, keep=True)
    workspace.commit_experiment(2, "a = 4\n", "third", NOW, keep=False)
    assert log(workspace, "main") == ["second", "Stock train.py"]
    assert log(workspace, "refs/experiments/0000") == ["first", "Stock train.py"]
    assert log(workspace, "refs/experiments/0002") == ["third", "second", "Stock train.py"]
    assert (tmp_path / "w" / "train.py").read_text() == "a = 3\n"
    assert workspace.holds(dropped) and workspace.holds(kept) and not workspace.holds(stock)
    assert workspace.git("status", "--porcelain") == ""


def test_doing_it_again_changes_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    stock = workspace.commit_stock("a = 1\n", NOW)
    first = workspace.commit_experiment(0, "a = 2\n", "kept", NOW, keep=True)
    again = Workspace(tmp_path)
    assert again.commit_stock("a = 1\n", NOW) == stock
    assert again.commit_experiment(0, "a = 2\n", "kept", NOW, keep=True) == first
    assert log(again, "main") == ["kept", "Stock train.py"]


def test_neither_hooks_nor_user_settings_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    template = home / "template" / "hooks"
    template.mkdir(parents=True)
    hook = template / "reference-transaction"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\n")
    hook.chmod(0o755)
    (home / ".gitconfig").write_text(
        f"[init]\ntemplateDir = {home}/template\ndefaultBranch = other\n[user]\nname = Somebody\n"
        f"[core]\nhooksPath = {template}\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    workspace = Workspace(tmp_path / "w")
    workspace.commit_stock("a = 1\n", NOW)
    assert not (tmp_path / "hook-ran").exists()
    assert workspace.git("log", "--format=%an <%ae> %D") == "bpbench <bpbench@localhost> HEAD -> main"


@pytest.mark.parametrize("message", ["--amend", "-F/etc/passwd", "$(touch x)", "a\0b", "", "é" * 3, "# comment"])
def test_messages_are_data(tmp_path: Path, message: str) -> None:
    workspace = Workspace(tmp_path)
    workspace.commit_stock("a = 1\n", NOW)
    workspace.commit_experiment(0, "a = 2\n", message, NOW, keep=False)
    assert (
        workspace.git("log", "-1", "--format=%B", "refs/experiments/0000").strip() == message.replace("\0", "").strip()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", "train.py"]


def test_variables_that_name_another_repository_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As git sets them for a hook, or a user for the files in the home folder."""
    theirs = tmp_path / "theirs"
    subprocess.run(["git", "init", "-q", str(theirs)], check=True)
    before = sorted(path.relative_to(theirs) for path in theirs.rglob("*"))
    for name, place in {"DIR": ".git", "WORK_TREE": ".", "INDEX_FILE": ".git/index", "OBJECT_DIRECTORY": "o"}.items():
        monkeypatch.setenv(f"GIT_{name}", str(theirs / place))
    workspace = Workspace(tmp_path / "w")
    workspace.commit_stock("a = 1\n", NOW)
    workspace.commit_experiment(0, "a = 2\n", "kept", NOW, keep=True)
    assert sorted(path.relative_to(theirs) for path in theirs.rglob("*")) == before
    assert log(workspace, "main") == ["kept", "Stock train.py"]


def stale_lock(git: Path) -> None:
    (git / "index.lock").touch()


def half_made(git: Path) -> None:
    shutil.rmtree(git)
    git.mkdir()


def no_folder(git: Path) -> None:
    shutil.rmtree(git)
    git.touch()


def empty_objects(git: Path) -> None:
    for path in (git / "objects").glob("??/*"):
        path.chmod(0o644)
        path.write_bytes(b"")


@pytest.mark.parametrize("damage", [stale_lock, half_made, no_folder, empty_objects])
def test_a_repository_that_git_cannot_use_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)  # above it: never to be found instead
    first = Experiment(0, "first", "a = 2\n", run=RUN, kept=True, proposed_at=NOW)
    second = Experiment(1, "second", "a = 3\n", run=RUN, kept=True, proposed_at=NOW)
    workspace = Workspace(tmp_path / "sessions" / "w")
    rebuild(workspace, STATE)
    state = replace(STATE, experiments=(replace(first, commit=commit_experiment(workspace, STATE, first)), second))
    damage(workspace.folder / ".git")
    rebuild(workspace, state)  # as a resume does
    commit_experiment(workspace, state, second)
    assert log(workspace, "main") == ["second", "first", "Stock train.py"]
    assert (workspace.folder / "train.py").read_text() == "a = 3\n"
    assert state.experiments[0].commit == workspace.git("rev-parse", "main~1")
    assert not list((tmp_path / ".git" / "refs" / "heads").iterdir())


def test_what_git_says_twice_reaches_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text("#!/bin/sh\necho no space left >&2; exit 128\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(git.parent), prepend=":")
    with pytest.raises(HarnessError, match=r"git init failed \(no space left\)"):
        rebuild(Workspace(tmp_path / "w"), STATE)
    git.unlink()
    monkeypatch.setenv("PATH", str(git.parent))
    with pytest.raises(HarnessError, match="git cannot be started"):
        rebuild(Workspace(tmp_path / "w"), STATE)
