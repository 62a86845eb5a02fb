"""Several sessions by one command, which goes on where it was stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cli, compose, multirun, opening, sizes
from harness.config import Config
from harness.errors import ConfigError, DataError
from harness.fold import fold
from harness.journal import read
from harness.multirun import run_multirun
from harness.records import SessionState
from harness.session_folder import new_folder
from harness.views import text


def several(overrides: list[str], job: Callable[[Config], int]) -> int:
    return run_multirun(overrides, job, say=text.say, report=cli._report)


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


def test_a_session_is_announced_as_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    overrides = ["task=tiny", "backend=null", "agent=noop", "session.name=x-${agent.name}"]
    assert run_multirun(overrides, lambda _: 0, say=said.append, report=cli._report) == 0
    assert said == ["session 1: task=tiny backend='null' agent=noop session.name=x-${agent.name}"]


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
FEWEST = ["task.baseline_seeds=1", "task.confirm_seeds=1"]


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
    told = capsys.readouterr().err
    assert f"{path.parent} is finished already, and cannot be ranked (" in told and "move it away" not in told
    assert path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))  # that it goes on from anywhere, test_resume.py shows
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


def test_a_session_of_a_version_that_knew_fewer_words_about_its_task_goes_on(campaign: list[str]) -> None:
    config = compose.compose(campaign[2:])
    config.task.first_look, config.task.device_class = not config.task.first_look, "another word"
    known = multirun.begun(config)
    assert known is not None and "first_look" in known[1].config["task"]
    config.task.audit_cuts += 1
    with pytest.raises(ConfigError, match=r"of another configuration \(task\)"):
        multirun.begun(config)


@pytest.mark.parametrize("what", ["stock train.py", "program", "protocol"])
def test_nor_is_one_of_another_benchmark(
    campaign: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    config = compose.compose(campaign[2:])
    assert multirun.begun(config) is not None
    other = tmp_path / "changed"
    if what == "stock train.py":
        other.write_text(sizes.STOCK.read_text() + "# Changed since.\n")
        monkeypatch.setattr(sizes, "STOCK", other)
    elif what == "program":
        other.write_text("Do something else.")
        monkeypatch.setattr(opening, "PROGRAM", other)
    else:
        monkeypatch.setattr(multirun, "PROTOCOL_VERSION", multirun.PROTOCOL_VERSION + 1)
    with pytest.raises(ConfigError, match=rf"noop-0 is of another {what}"):
        multirun.begun(config)


def test_a_folder_is_the_same_however_it_is_written(campaign: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(campaign[-1].partition("=")[2])
    monkeypatch.chdir(root.parent)
    assert multirun.begun(compose.compose([*campaign[2:-1], f"session.root=./{root.name}"])) is not None


def test_an_unnamed_session_is_a_new_one(tiny_overrides: list[str]) -> None:
    assert multirun.begun(compose.compose(tiny_overrides)) is None


@pytest.mark.parametrize("journal", [None, b"", b'{"seq": 0, "ty'])
def test_a_session_that_was_killed_while_it_opened_is_begun_again(
    tiny_overrides: list[str], tmp_path: Path, journal: bytes | None
) -> None:
    folder = tmp_path / "early"
    folder.mkdir()
    (folder / "secret.json").write_text("{}")
    if journal is not None:
        (folder / "journal.jsonl").write_bytes(journal)
    config = compose.compose([*tiny_overrides, f"session.root={tmp_path}", "session.name=early"])
    assert multirun.begun(config) is None and new_folder(config) == folder and list(folder.iterdir()) == []
    (folder / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="early holds no session and other files: choose another name"):
        multirun.begun(config)
    with pytest.raises(ConfigError, match="exists already"):
        new_folder(config)


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        ({"task": {"clock": "metered"}}, [], True),
        ({"task": {"clock": "wall"}}, ["task.clock=metered"], False),
        ({"task": {"clock": "wall"}, "budget": {"clock": "wall"}}, ["budget.clock=wall"], True),
        ({"task": {"clock": "wall"}, "budget": {"clock": "wall"}}, [], False),
        ({"session": {"experiments": 3}}, ["agent=noop"], False),
        ({}, ["agent=llm", "llm=claude_haiku", "+llm.extra.logit_bias={50256:-100}"], True),
    ],
)
def test_what_a_session_found_out_is_no_difference(
    then: dict[str, dict[str, object]], now: list[str], same: bool
) -> None:
    assert is_same(compose.compose(["task=demo", *now]), then) is same


def test_a_replay_has_as_many_experiments_as_what_it_repeats(campaign: list[str]) -> None:
    repeated = f"agent.options.session={journal_of(campaign).parent}"
    assert is_same(compose.compose(["agent=replay", repeated]), {"session": {"experiments": 1}})


def is_same(config: Config, then: dict[str, dict[str, object]]) -> bool:
    """Whether a session that was opened with `config`, but for the values of `then`, is the one of `config` today."""
    recorded = json.loads(json.dumps(opening.plain(config)))
    for group, values in then.items():
        recorded[group] |= values
    facts = {
        "stock_source": sizes.stock_of(config.task),
        "program": opening.instructions(config),
        "key": {"protocol": opening.PROTOCOL_VERSION},
    }
    state = SessionState(config=recorded, opened=facts)
    return not list(multirun._differences(state, config))
