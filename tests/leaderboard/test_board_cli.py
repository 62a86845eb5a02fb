"""The command line as it is installed: everything in one help, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leaderboard import cli

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "litellm", "hydra", "omegaconf", "numpy", "scipy", "optuna", "wandb", "rich", "git", "matplotlib"}


def test_help_names_every_command_and_loads_nothing_heavy(tmp_path: Path) -> None:
    script = """
import json, sys
from leaderboard.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, text=True, capture_output=True, check=True
    )
    *help_lines, modules = done.stdout.splitlines()
    shown = " ".join(help_lines)
    commands = "run show resume bundle verify reproduce compare power portability sweep submit attest check leaderboard"
    for command in commands.split():
        assert f" {command} " in shown
    assert not set(json.loads(modules)) & HEAVY


def test_reproduce_wants_a_bundle_or_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["task=tiny"], ["a.bundle.tar", "b.bundle.tar"], ["a.bundle.tar", "--all", "."]):
        assert cli.main(["reproduce", *arguments]) == cli.cli.EXIT_USAGE
    assert capsys.readouterr().err.count("give one BUNDLE, or --all DIR") == 4
