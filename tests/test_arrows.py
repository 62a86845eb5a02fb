"""Who may import whom, as the design draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"harness", "trainer", "backends", "leaderboard"}
ALLOWED = {"harness": set(), "backends": set(), "trainer": {"backends"}, "leaderboard": {"harness"}}
FORBIDDEN = {
    "harness": {"torch"},
    "trainer": {"litellm", "hydra", "omegaconf", "wandb", "git"},
    "backends": {"litellm", "hydra", "omegaconf", "wandb", "git"},
    "leaderboard": {"torch"},
}


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(OURS))
def test_arrows(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        names = imported(path)
        outside = names & OURS - {package} - ALLOWED[package]
        assert not outside, f"{path.relative_to(ROOT)} imports {outside}"
        assert not names & FORBIDDEN[package], f"{path.relative_to(ROOT)} imports {names & FORBIDDEN[package]}"


def test_litellm_has_one_door() -> None:
    users = [path for package in OURS for path in (ROOT / package).rglob("*.py") if "litellm" in imported(path)]
    assert [str(path.relative_to(ROOT)) for path in users] == ["harness/llm/client.py"]


def test_importing_the_session_starts_nothing_heavy() -> None:
    """The whole harness, down to the session, without torch or litellm."""
    code = "import sys, harness.assemble; print(sorted({'torch', 'litellm', 'wandb', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
