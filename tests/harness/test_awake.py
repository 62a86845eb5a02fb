"""A Mac stays awake as long as a session runs. The tool is a stand-in: no test ran on a Mac."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.awake import keep_awake


def test_a_mac_is_kept_awake_by_its_own_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    keep_awake("darwin")  # no such tool: nothing happens
    tool = tmp_path / "caffeinate"
    tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said.new && mv {tmp_path}/said.new {tmp_path}/said\n')
    tool.chmod(0o755)
    keep_awake("linux")
    keep_awake("darwin")
    deadline = time.monotonic() + 20
    while not (tmp_path / "said").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (tmp_path / "said").read_text() == f"-i -w {os.getpid()}\n"
