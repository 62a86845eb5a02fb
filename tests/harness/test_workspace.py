from __future__ import annotations

from pathlib import Path

import pytest

from harness.workspace import Workspace

NOW = 1_700_000_000.0


def log(workspace: Workspace, ref: str) -> list[str]:
    return workspace.git.log("--format=%s", ref).splitlines()


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
    assert workspace.git.status("--porcelain") == ""


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
    assert workspace.git.log("--format=%an <%ae> %D") == "bpbench <bpbench@localhost> HEAD -> main"


@pytest.mark.parametrize("message", ["--amend", "-F/etc/passwd", "$(touch x)", "a\0b", "", "é" * 3, "# comment"])
def test_messages_are_data(tmp_path: Path, message: str) -> None:
    workspace = Workspace(tmp_path)
    workspace.commit_stock("a = 1\n", NOW)
    workspace.commit_experiment(0, "a = 2\n", message, NOW, keep=False)
    assert workspace.git.log("-1", "--format=%B", "refs/experiments/0000").strip() == message.replace("\0", "").strip()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", "train.py"]
