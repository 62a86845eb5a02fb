"""A bundle is its journal: same session, same bytes; one changed byte, no bundle."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import simulated

from harness.errors import ConfigError, HarnessError, JournalError
from harness.workspace import Workspace
from leaderboard import bundle
from leaderboard.archive import unpack


@pytest.fixture(scope="module")
def packed(session: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle.write(session, tmp_path_factory.mktemp("bundles") / "one.bundle.tar")


def cut(session: Path, folder: Path, lines: int, tail: bytes = b"") -> Path:
    """A copy of the session's journal that ends after so many lines."""
    folder.mkdir()
    kept = (session / "journal.jsonl").read_bytes().splitlines(keepends=True)[:lines]
    (folder / "journal.jsonl").write_bytes(b"".join(kept) + tail)
    return folder


def test_the_same_session_gives_the_same_bytes(session: Path, packed: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved"
    elsewhere.mkdir()
    shutil.copy(session / "journal.jsonl", elsewhere)  # all that it takes
    again = bundle.write(elsewhere, tmp_path / "again.tar")
    assert again.read_bytes() == packed.read_bytes()


def test_its_files_say_what_the_journal_says(session: Path, packed: Path) -> None:
    members = unpack(packed.read_bytes(), bundle.NAMES)
    assert tuple(members) == bundle.NAMES
    assert members[bundle.JOURNAL] == (session / "journal.jsonl").read_bytes()
    assert json.loads(members[bundle.CONFIG])["task"]["name"] == "tiny"
    assert json.loads(members[bundle.CALIBRATION])["budget_seconds"] == pytest.approx(20_480 / 1000, rel=0.01)
    assert "torch" in json.loads(members[bundle.ENVIRONMENT])["packages"]
    read = bundle.read(packed)
    assert read.state.closed and read.state.gain is not None


def test_git_clones_its_history(session: Path, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "workspace.bundle").write_bytes(unpack(packed.read_bytes(), bundle.NAMES)[bundle.WORKSPACE])
    run = ["git", "-c", "transfer.fsckObjects=true", "clone", "-q", "--mirror", "workspace.bundle", "clone"]
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)
    form = "--format=%(refname) %(objectname)"
    cloned = subprocess.run(
        ["git", "for-each-ref", form], cwd=tmp_path / "clone", check=True, capture_output=True, text=True
    )
    assert cloned.stdout.strip() == Workspace(session / "workspace").git("for-each-ref", form)


def test_commits_of_odd_texts_are_those_that_git_makes(tmp_path: Path) -> None:
    """Texts that git would rewrite or refuse: the ids in the journal still follow from it."""
    folder = simulated.run_session(tmp_path / "odd", values=("0.6\n# \u20ac \U0001f600",), git=True)
    read = bundle.read(bundle.write(folder, tmp_path / "odd.bundle.tar"))
    commit = read.state.experiments[0].commit
    from leaderboard.history import history

    assert commit is not None and commit in history(read.state).refs.values()


def test_an_unfinished_session_keeps_its_nonce(session: Path, tmp_path: Path) -> None:
    folder = cut(session, tmp_path / "cut", 12, tail=b'{"torn')
    (folder / "secret.json").write_text(json.dumps({"nonce": simulated.nonce_of(session)}))
    path = bundle.write(folder, tmp_path / "cut.bundle.tar")
    assert simulated.nonce_of(session).encode() not in path.read_bytes()
    read = bundle.read(path)
    assert len(read.records) == 12 and not read.state.closed


def test_a_secret_of_the_environment_is_never_packed(session: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.bundle.tar"
    for name, value in (("SOME_API_KEY", "EMBED_LR = 0.5"), ("HF_TOKEN", '"""Pretrain a small GPT')):
        with pytest.raises(HarnessError, match=name) as refusal:
            bundle.write(session, target, {name: value})
        assert value not in str(refusal.value) and not target.exists()
    bundle.write(session, target, {"SHORT_KEY": "0", "PLAIN": "EMBED_LR = 0.5", "API_KEY": "sk-not-in-there"})


def test_what_is_no_session_is_not_packed(session: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never opened"):
        bundle.write(cut(session, tmp_path / "empty", 0), tmp_path / "x")
    with pytest.raises(JournalError, match="expected the folder of a session"):
        bundle.write(tmp_path / "missing", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def changed_bytes_are_found(packed: Path, tmp_path: Path, count: int) -> None:
    content = packed.read_bytes()
    rng = random.Random(0)
    target = tmp_path / "changed.bundle.tar"
    for _ in range(count):
        at, bit = rng.randrange(len(content)), 1 << rng.randrange(8)
        target.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        with pytest.raises((HarnessError, JournalError)):
            bundle.read(target)


def test_a_changed_byte_is_found(packed: Path, tmp_path: Path) -> None:
    changed_bytes_are_found(packed, tmp_path, 60)


@pytest.mark.slow
def test_each_of_a_thousand_changed_bytes_is_found(packed: Path, tmp_path: Path) -> None:
    changed_bytes_are_found(packed, tmp_path, 1000)


def test_every_byte_of_its_headers_counts(packed: Path, tmp_path: Path) -> None:
    """The places that no hash covers: the archive's own headers, and its end."""
    content = packed.read_bytes()
    places = [*range(0, 512, 7), *range(len(content) - 1024, len(content), 31)]
    target = tmp_path / "changed.bundle.tar"
    for at in places:
        target.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(HarnessError):
            bundle.read(target)


def test_a_journal_too_large_to_read_is_refused(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_RECORDS", 3)
    with pytest.raises(HarnessError, match="more than 3 lines"):
        bundle.read(packed)
    monkeypatch.setattr(bundle, "MAX_RECORDS", 1000)
    for limit, told in (("MAX_VALUES", "more than 100 values"), ("MAX_JOURNAL_BYTES", "at most 100 are read")):
        with monkeypatch.context() as patched, pytest.raises(HarnessError, match=told):
            patched.setattr(bundle, limit, 100)
            bundle.read(packed)
    monkeypatch.setattr(bundle, "MAX_LINE_BYTES", 100)
    with pytest.raises(HarnessError, match="at most 100 are read"):
        bundle.read(packed)
