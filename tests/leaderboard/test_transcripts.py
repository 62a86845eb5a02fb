"""What a model said, in bundles: under the journal's hashes, checked against its charges, and left out without harm."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import simulated
from doctored import Lines, chained, lines_of

from harness import agents
from harness.config import AgentConfig
from harness.errors import HarnessError
from harness.fold import fold
from harness.journal import parse
from harness.llm.line import open_line
from leaderboard import bundle, transcripts
from leaderboard.archive import pack, unpack
from leaderboard.verify import Verified, examine, verify

MODEL = ("agent=llm", "llm=scripted", "llm.price.input_usd_per_million=2.0", "agent.options.smokes=0")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of three experiments with a scripted model, asked through LiteLLM."""
    folder = tmp_path_factory.mktemp("sessions") / "spoken"
    config = simulated.configuration(*MODEL)
    with open_line(config, folder, {}) as line:
        return simulated.run_session(folder, *MODEL, agent=agents.load(config.agent), line=line)


@pytest.fixture(scope="module")
def packed(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle.write(spoken, tmp_path_factory.mktemp("bundles") / "spoken.bundle.tar")


def findings(done: Verified) -> list[str]:
    found = dict(done.findings)["what the model said"]
    return [f"{finding.level}: {finding.where}: {finding.text}" for finding in found]


def changed(whole: bundle.Bundle, said: dict[str, bytes], lines: Lines) -> Verified:
    """The checks of a bundle of `lines` and `said`, as one who knows the format would write it."""
    records, _ = parse(chained(lines), Path("journal.jsonl"))
    return examine(replace(whole, records=tuple(records), state=fold(records), said=said))


def test_everything_that_was_said_is_packed_and_agrees_with_the_charges(spoken: Path, packed: Path) -> None:
    checked = verify(packed)
    whole = checked.bundle
    assert checked.consistent and findings(checked) == []
    assert tuple(whole.said) == transcripts.names(whole.records) and len(whole.said) == 2 * whole.state.llm.num_calls
    assert whole.state.llm.cost_usd
    for name, content in whole.said.items():
        assert (spoken / name).read_bytes() == content


def test_tar_unpacks_a_bundle_into_a_folder_that_replays(packed: Path, tmp_path: Path) -> None:
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    whole = bundle.read(packed)
    assert all((tmp_path / name).read_bytes() == content for name, content in whole.said.items())
    replay = agents.load(AgentConfig("replay", {"session": str(tmp_path)}))
    again = simulated.run_session(tmp_path / "again", agent=replay)
    sources = [item.source for item in bundle.read(bundle.write(again, tmp_path / "x.tar")).state.experiments]
    assert sources == [item.source for item in whole.state.experiments] and all(sources)


def test_what_is_missing_is_said_and_breaks_nothing(spoken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "less"
    shutil.copytree(spoken, folder)
    first, second = sorted((folder / "llm" / "replies").iterdir())[:2]
    first.unlink()
    second.write_bytes(second.read_bytes() + b" ")
    checked = verify(bundle.write(folder, tmp_path / "less.tar"))
    total = len(transcripts.names(checked.bundle.records))
    assert checked.consistent
    assert findings(checked) == [f"unknown: transcripts: 2 of {total} requests and answers are not in the bundle"]


def test_no_more_is_packed_than_the_cap_allows(spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "MAX_BYTES", 30_000)
    said = bundle.read(bundle.write(spoken, tmp_path / "capped.tar")).said
    assert said and sum(map(len, said.values())) <= 30_000


def test_another_answer_under_the_same_name_is_refused(packed: Path, tmp_path: Path) -> None:
    members = unpack(packed.read_bytes(), bundle.NAMES, transcripts.NAME)
    name = next(name for name in members if "/replies/" in name)
    other = tmp_path / "other.tar"
    other.write_bytes(pack({**members, name: members[name].replace(b"HYPOTHESIS", b"hypothesis") + b" "}))
    with pytest.raises(HarnessError, match="not what its name says"):
        bundle.read(other)


def test_an_answer_that_the_journal_does_not_name_is_refused(packed: Path, tmp_path: Path) -> None:
    members = unpack(packed.read_bytes(), bundle.NAMES, transcripts.NAME)
    content, other = b"{}", tmp_path / "other.tar"
    other.write_bytes(pack({**members, f"llm/replies/{hashlib.sha256(content).hexdigest()}.json": content}))
    with pytest.raises(HarnessError, match="does not call for"):
        bundle.read(other)
    other.write_bytes(pack({**members, "llm/replies/../../x.json": content}))
    with pytest.raises(HarnessError, match="not a bundle"):
        bundle.read(other)


def test_a_charge_below_what_the_answer_reports_is_found(packed: Path) -> None:
    whole = bundle.read(packed)
    for key, value in (("prompt_tokens", 1), ("completion_tokens", 1), ("cost_usd", 0.0)):
        lines = lines_of(whole.records)
        next(line["data"] for line in lines if line["type"] == "llm_call_finished")[key] = value
        found = findings(changed(whole, dict(whole.said), lines))
        assert len(found) == 1 and found[0].startswith("broken: call 0: "), key


def test_a_hostile_answer_is_a_finding_not_a_crash(packed: Path) -> None:
    whole = bundle.read(packed)
    for content in (
        b"\xff",
        b"[]",
        b'{"usage": 3}',
        b"[" * 100_000,
        json.dumps({"usage": {"prompt_tokens": "x"}}).encode(),
    ):
        digest = hashlib.sha256(content).hexdigest()
        lines = lines_of(whole.records)
        next(line["data"] for line in lines if line["type"] == "llm_call_finished")["reply_sha256"] = digest
        done = changed(whole, {f"llm/replies/{digest}.json": content}, lines)
        assert any(found.startswith("broken") for found in findings(done)), content[:20]
