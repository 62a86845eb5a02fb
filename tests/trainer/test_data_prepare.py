"""prepare, end to end on the synthetic source."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer.data import tokenizer
from trainer.data.corpus import open_corpus
from trainer.data.prepare import _words, prepare, throttled
from trainer.data.source import DataError
from trainer.data.storage import folder_sha256

FRACTIONS = {"val": 0.1, "test": 0.1, "decoy": 0.1}
TASK = {"vocab_size": 300, "sequence_length": 32, "num_eval_windows": 8, "num_decoy_tokens": 256}


def quiet(stage: str, done: int, total: int | None, unit: str) -> None:
    pass


def request_for(home: Path, runtime: Path, num_bytes: int = 150_000, **task: int) -> dict[str, Any]:
    runtime.mkdir(exist_ok=True)
    options = {"seed": 3, "num_bytes": num_bytes, "fractions": FRACTIONS}
    data = {"name": "synthetic", "source": "synthetic", "text_sha256": None, "options": options}
    return {"data": data, "task": TASK | task, "home": str(home), "runtime_paths": [str(runtime)]}


def start(request: dict[str, Any], folder: Path, **environment: str) -> subprocess.Popen[str]:
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    command = [sys.executable, "-I", "-m", "trainer.data.prepare", str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)


def events(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.communicate()[0].splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def built(home: Path) -> tuple[Path, dict[str, Any]]:
    return prepare(request_for(home, home / "runtime"), quiet)


def test_train_tokens_are_the_text_document_by_document(home: Path, built: tuple[Path, dict[str, Any]]) -> None:
    folder, meta = built
    corpus = open_corpus(request_for(home, home / "runtime")["data"], home, quiet)
    documents = corpus.documents("train")
    tokens = np.fromfile(folder / "train.bin", dtype="<u2")
    offsets = np.load(folder / "train.offsets.npy")
    encoding = tokenizer.load(folder / "tokenizer.json")
    assert offsets.dtype == np.int64 and offsets[0] == 0 and offsets[-1] == len(tokens)
    assert len(documents) == len(offsets) - 1 == meta["splits"]["train"]["num_documents"]
    assert np.array_equal(np.flatnonzero(tokens == meta["bos_token"]), offsets[:-1])
    for document, first, last in zip(documents, offsets, offsets[1:], strict=False):
        assert encoding.decode(tokens[first + 1 : last].tolist()) == document.text
    assert meta["splits"]["train"]["num_bytes"] == sum(len(document.text.encode()) for document in documents)
    assert meta["splits"]["train"]["num_tokens"] == len(tokens)


def test_windows_are_disjoint_pieces_of_their_own_split(home: Path, built: tuple[Path, dict[str, Any]]) -> None:
    folder, meta = built
    corpus = open_corpus(request_for(home, home / "runtime")["data"], home, quiet)
    encoding = tokenizer.load(folder / "tokenizer.json")
    bos = meta["bos_token"]
    lengths = np.load(folder / "token_bytes.npy")
    for split in ("val", "test"):
        windows = np.load(folder / f"{split}.npy")
        assert windows.shape == (8, 32) and windows.dtype == np.uint16
        assert meta["splits"][split]["num_bytes"] == lengths[windows].sum()
        text = [document.text for document in corpus.documents(split)]
        pieces = [piece for window in windows for piece in decode(encoding, window, bos) if piece]
        assert all(any(piece in each for each in text) for piece in pieces)
        assert len({window.tobytes() for window in windows}) == 8
    decoy = np.load(folder / "decoy.npy")
    assert decoy.shape == (256,) and decoy[0] == bos


def decode(encoding: Any, window: Any, bos: int) -> list[str]:
    groups = np.split(window, np.flatnonzero(window == bos))
    return [encoding.decode([int(token) for token in group if token != bos]) for group in groups]


def test_token_bytes_count_utf8_and_nothing_for_bos(built: tuple[Path, dict[str, Any]]) -> None:
    lengths = np.load(built[0] / "token_bytes.npy")
    assert lengths.dtype == np.int32 and lengths.shape == (300,) and lengths[299] == 0
    text = "grüße, 世界 <|bos|>\n\tx"
    tokens = tokenizer.load(built[0] / "tokenizer.json").encode_ordinary(text)
    assert lengths[tokens].sum() == len(text.encode()) and max(tokens) < 299


def test_second_call_does_nothing_and_damage_is_repaired(home: Path, built: tuple[Path, dict[str, Any]]) -> None:
    folder, meta = built
    stages: list[str] = []
    request = request_for(home, home / "runtime")
    assert prepare(request, lambda stage, *_: stages.append(stage)) == (folder, meta)
    assert stages == []
    (folder / ".DS_Store").write_text("where a window was on a Mac")
    assert folder_sha256(folder) == meta["data_sha256"]
    with (folder / "train.bin").open("r+b") as file:
        file.write(b"\xff")
    assert folder_sha256(folder) != meta["data_sha256"]
    assert prepare(request, quiet)[1]["data_sha256"] == folder_sha256(folder) == meta["data_sha256"]


def test_a_damaged_text_cache_is_rebuilt(tmp_path: Path) -> None:
    request = request_for(tmp_path, tmp_path / "runtime", num_bytes=60_000)
    first = open_corpus(request["data"], tmp_path, quiet)
    before = first.documents("val")
    (first.folder / "documents.parquet").write_bytes(b"half")
    again = open_corpus(request["data"], tmp_path, quiet)
    assert again.documents("val") == before and before


def test_another_process_with_other_threads_makes_the_same_bytes(
    tmp_path: Path, built: tuple[Path, dict[str, Any]]
) -> None:
    process = start(request_for(tmp_path, tmp_path / "runtime"), tmp_path, RAYON_NUM_THREADS="1")
    lines = events(process)
    assert process.returncode == 0 and lines[-1]["event"] == "done"
    for name in ("text_sha256", "tokenizer_sha256", "data_sha256"):
        assert lines[-1]["meta"][name] == built[1][name]
    assert {line["stage"] for line in lines[:-1]} >= {"read", "dedup", "leak check", "tokenizer", "encode"}


SUICIDE = """
import json, os, signal, sys
from trainer.data.prepare import prepare
def report(stage, done, total, unit):
    if stage == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(json.loads(sys.argv[1]), report)
"""


@pytest.mark.parametrize("stage", ["dedup", "tokenizer", "encode"])
def test_a_kill_leaves_nothing_half_done(stage: str, tmp_path: Path) -> None:
    request = request_for(tmp_path, tmp_path / "runtime")
    command = [sys.executable, "-I", "-c", SUICIDE, json.dumps(request), stage]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [path for path in (tmp_path / "data").glob("[!.]*") if path.is_dir()] == []
    folder, meta = prepare(request, quiet)
    assert folder_sha256(folder) == meta["data_sha256"]
    assert [path for path in (tmp_path / "data").iterdir() if path.is_dir()] == [folder]


def test_two_at_once_build_one_data_set(tmp_path: Path) -> None:
    request = request_for(tmp_path, tmp_path / "runtime")
    both = [start(request, tmp_path) for _ in range(2)]
    last = [events(process)[-1] for process in both]
    assert last[0] == last[1] and last[0]["event"] == "done"
    assert folder_sha256(Path(last[0]["path"])) == last[0]["meta"]["data_sha256"]


def test_vocabularies_share_the_text(home: Path, built: tuple[Path, dict[str, Any]]) -> None:
    stages: set[str] = set()
    folder, meta = prepare(request_for(home, home / "runtime", vocab_size=320), lambda stage, *_: stages.add(stage))
    assert folder != built[0] and meta["vocab_size"] == 320 and stages == {"tokenizer", "encode"}


def test_held_out_text_in_the_runtime_is_refused(
    home: Path, tmp_path: Path, built: tuple[Path, dict[str, Any]]
) -> None:
    corpus = open_corpus(request_for(home, home / "runtime")["data"], home, quiet)
    request = request_for(tmp_path, tmp_path / "runtime")
    (tmp_path / "runtime" / "innocent.txt").write_text(corpus.documents("train")[0].text)
    assert prepare(request, quiet)[1]["runtime_overlap"] == 0.0
    assert prepare(request | {"runtime_paths": []}, quiet)[1]["runtime_overlap"] is None  # unknown, not none
    (tmp_path / "runtime" / "copied.py").write_text(corpus.documents("test")[0].text)  # installed after the fact
    with pytest.raises(DataError, match=r"runtime_overlap=0\.\d+.*copied\.py"):
        prepare(request, quiet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": {"source": "nothing"}},
            "data.source='nothing' does not exist: expected one of files, hf, pypi, synthetic",
        ),
        ({"data": {"source": "split"}}, "data.source='split' is no source"),
        ({"data": {"source": "source"}}, "data.source='source' is no source"),
        ({"data": {"source": "../x"}}, "does not exist"),
        ({"data": {"options": {"sead": 1}}}, "data.options.sead is unknown: expected one of num_bytes, seed"),
        ({"data": {"options": {"seed": "x"}}}, "data.options.seed='x': expected int"),
        ({"data": {"options": {"fractions": {"train": 0.5}}}}, "expected shares for val, test, decoy"),
        ({"data": {"options": {"fractions": {"val": 0.9}}}}, "at most 0.5 in total"),
        ({"data": {"text_sha256": "0" * 64}}, "is pinned, but the text has"),
        ({"task": {"vocab_size": 256}}, "task.vocab_size=256: expected at least 257"),
        ({"task": {"vocab_size": 60_000}}, "the text is enough for"),
        ({"task": {"num_eval_windows": 10_000}}, "10000 windows of 32 need 320000"),
        ({"task": {"num_decoy_tokens": 10_000_000}}, "split decoy has"),
        ({"task": {"sequence_length": None}}, "task.sequence_length=None: expected a positive integer"),
    ],
)
def test_bad_requests_name_the_value(home: Path, change: dict[str, dict[str, Any]], message: str) -> None:
    request = request_for(home, home / "runtime")
    for group, values in change.items():
        request[group] = request[group] | values
    with pytest.raises(DataError) as caught:
        prepare(request, quiet)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[1", '{"data": {}, "task": {}, "home": "x", "runtime_paths": []}'])
def test_an_error_is_one_event_and_status_1(tmp_path: Path, content: str) -> None:
    (tmp_path / "request.json").write_text(content)
    command = [sys.executable, "-I", "-m", "trainer.data.prepare", str(tmp_path / "request.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == ""
    assert json.loads(done.stdout)["event"] == "error"


def test_a_full_disk_says_what_to_do() -> None:
    assert "let BPBENCH_HOME be a folder elsewhere" in _words(OSError(errno.ENOSPC, "No space left on device"))
    assert _words(OSError(errno.ENOSPC, "No space left on device", "/a/b")).endswith("No space left on device: '/a/b'")


def test_progress_is_throttled_but_keeps_the_ends_of_stages() -> None:
    now = 0.0
    emitted: list[Any] = []

    def clock() -> float:
        return now

    report = throttled(emitted.append, clock)
    for stage in ("a", "b"):
        for done in range(1, 101):
            report(stage, done, 100, "B")
            now += 0.01
    assert [(event["stage"], event["done"]) for event in emitted if event["done"] in (1, 100)] == [
        ("a", 1),
        ("a", 100),
        ("b", 1),
        ("b", 100),
    ]
    assert 20 <= len(emitted) <= 26
