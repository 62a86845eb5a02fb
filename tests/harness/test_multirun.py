"""Several sessions by one command, which goes on where it was stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cli, compose, multirun
from harness.config import Config
from harness.errors import ConfigError, DataError
from harness.fold import fold
from harness.journal import read
from harness.multirun import run_multirun


def several(overrides: list[str], job: Callable[[Config], int]) -> int:
    return run_multirun(overrides, job, say=cli._complain, report=cli._report)


def test_multirun_runs_every_combination_and_leaves_nothing_but_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[str, str, int]] = []

    def job(config: Config) -> int:
        seen.append((config.agent.name, config.backend.name, config.session.seed))
        return 0

    overrides = ["task=tiny", "backend=null", "agent=noop,random", "session.seed=range(2)"]
    before = list(sys.argv)
    assert several(overrides, job) == 0
    assert seen == [("noop", "null", 0), ("noop", "null", 1), ("random", "null", 0), ("random", "null", 1)]
    assert sys.argv == before
    assert "HYDRA_FULL_ERROR" not in os.environ
    files = [path.relative_to(tmp_path).parts for path in tmp_path.rglob("*") if path.is_file()]
    assert [(parts[0], parts[1], parts[-1]) for parts in files] == [("sessions", "multirun", "multirun.yaml")]


def test_every_session_of_a_multirun_has_the_text_of_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[str, str, str | None]] = []

    def job(config: Config) -> int:
        seen.append((config.task.name, config.data.name, config.data.about))
        return 0

    assert several(["task=small,nano", "agent=noop"], job) == 0
    assert several(["task=small", "data=tinystories", "agent=noop"], job) == 0
    assert [name for name, _, _ in seen] == ["small", "nano", "small"]
    assert [data for _, data, _ in seen] == ["climbmix", "pypi", "tinystories"] and all(about for *_, about in seen)


def test_a_failed_session_is_reported_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[int] = []

    def job(config: Config) -> int:
        if config.session.seed == 0:
            raise DataError("no data")
        seen.append(config.session.seed)
        return 0

    assert several(["session.seed=0,1,2"], job) == 1
    assert seen == [1, 2]
    assert "bpbench: no data\n" in capsys.readouterr().err


def test_a_multirun_that_does_not_compose_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Config] = []
    with pytest.raises(ConfigError, match="unknown agent=tpee"):
        several(["agent=noop,tpee"], lambda config: len(seen) or seen.append(config) or 0)
    assert seen == []


NAMED = ["run", "-m", "agent=noop", "session.name=${agent.name}-${session.seed}", "session.experiments=1"]
FEWEST = ["task.baseline_seeds=2", "task.confirm_seeds=2"]


@pytest.fixture(scope="module")
def campaign(tiny_overrides: list[str], bpbench_home: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that has run one session, whose name says which it is."""
    command = [*NAMED, *tiny_overrides, *FEWEST, f"session.root={tmp_path_factory.mktemp('campaign')}"]
    assert cli.main(command) == 0
    return command


def journal_of(campaign: list[str]) -> Path:
    return Path(campaign[-1].partition("=")[2]) / "noop-0" / "journal.jsonl"


def test_what_is_finished_is_left_alone_and_what_is_not_goes_on(
    campaign: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = journal_of(campaign)
    whole, before = path.read_bytes(), fold(read(path)[0])
    capsys.readouterr()
    assert cli.main(campaign) == 0
    assert f"{path.parent} is finished already" in capsys.readouterr().err
    assert path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))
    assert not fold(read(path)[0]).closed
    assert cli.main(campaign) == 0
    after = fold(read(path)[0])
    assert before.closed and after.closed and after.num_restarts == 1
    assert after.baseline == before.baseline and after.gain == before.gain


def test_a_session_of_another_configuration_is_not_taken_for_this_one(
    campaign: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = journal_of(campaign).read_bytes()
    other = ["session.experiments=2" if word == "session.experiments=1" else word for word in campaign]
    assert cli.main(other) == 2
    assert "noop-0 is of another configuration (session); choose another name" in capsys.readouterr().err
    assert journal_of(campaign).read_bytes() == before


def test_nor_is_one_of_another_stock_script(
    campaign: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = compose.compose(campaign[2:])
    assert multirun.begun(config) is not None
    other = tmp_path / "train.py"
    other.write_text(multirun.STOCK.read_text() + "# Changed since.\n")
    monkeypatch.setattr(multirun, "STOCK", other)
    with pytest.raises(ConfigError, match=r"noop-0 is of another stock train\.py"):
        multirun.begun(config)
