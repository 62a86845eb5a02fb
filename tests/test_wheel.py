"""An installation has what a clone has: the harness runs from the wheel's own files.

Its children start isolated, so that here they take trainer and backends from the clone, which are the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, as pip would put it there."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def bpbench(installed: Path, folder: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from leaderboard import cli; sys.exit(cli.main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(installed), "BPBENCH_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_session_and_its_check_need_no_clone(installed: Path, tmp_path: Path, bpbench_home: Path) -> None:
    dry = ("task=tiny", "backend=null", "data=synthetic", "agent=noop", "session.experiments=1", "session.name=one")
    done = bpbench(installed, tmp_path, bpbench_home, "run", *dry, "task.baseline_seeds=1", "task.confirm_seeds=1")
    assert done.returncode == 0, done.stderr
    packed = bpbench(installed, tmp_path, bpbench_home, "bundle", "one")
    assert packed.returncode == 0, packed.stderr
    refused = bpbench(installed, tmp_path, bpbench_home, "submit", "one.bundle.tar", "--by", "Ann", "--entries", ".")
    assert "cannot be ranked" in refused.stderr, refused.stderr


def test_what_is_read_at_run_time_is_there_and_what_is_published_is_not(installed: Path) -> None:
    """Every file of the packages that git knows, but the entries."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a clone")
    packages = ("harness/", "trainer/", "backends/", "leaderboard/", "conf/")
    wanted = {name for name in listed.stdout.split("\0") if name.startswith(packages)}
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    assert {name for name in wanted if not name.startswith("leaderboard/entries/")} <= found
    assert not any(name.startswith("leaderboard/entries/") for name in found)
    assert (installed / "harness" / "program.md").read_text() == (ROOT / "program.md").read_text()
