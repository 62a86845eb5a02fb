"""The other sources, and the YAMLs under conf/data."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from harness.config import DataConfig
from trainer.data import files, pypi, synthetic
from trainer.data.corpus import open_corpus
from trainer.data.source import DataError, Document, cut, load_source
from trainer.data.split import read_fractions
from trainer.data.storage import file_sha256

ROOT = Path(__file__).parents[2]


def quiet(stage: str, done: int, total: int | None, unit: str) -> None:
    pass


def read_folder(folder: Path, **options: Any) -> dict[str, str]:
    source = files.open_source({"path": str(folder), **options}, folder, quiet)
    return {document.id: document.text for document in source.documents()}


def test_files_of_every_kind_in_any_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    (tmp_path / "sub" / "b.MD").write_text("# Grüße")
    (tmp_path / "c.jsonl").write_text('{"text": "first"}\n\n{"text": "second", "more": 1}\n')
    pq.write_table(pa.table({"text": ["x", None, "y\r\nz"]}), tmp_path / "d.parquet")
    (tmp_path / "ignored.py").write_text("no")
    (tmp_path / "empty.txt").write_text(" \n")
    assert read_folder(tmp_path) == {
        "a.txt": "one\ntwo\nthree",
        "sub/b.MD": "# Grüße",
        "c.jsonl:000000000": "first",
        "c.jsonl:000000002": "second",
        "d.parquet:000000000": "x",
        "d.parquet:000000002": "y\nz",
    }


def test_a_changed_file_is_another_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    before = files.open_source({"path": str(tmp_path)}, tmp_path, quiet).identity()
    (tmp_path / "a.txt").write_text("two")
    after = files.open_source({"path": str(tmp_path)}, tmp_path, quiet).identity()
    assert json.dumps(before) != json.dumps(after)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff\xfe", r"a\.txt is not UTF-8 text"),
        (
            "a.jsonl",
            b'{"text": "x"}\n{"txt": "y"}',
            r"a\.jsonl line 2: expected a JSON object with a string under 'text'",
        ),
        ("a.jsonl", b"[1", r"line 1: expected a JSON object"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"lone surrogate"),
        ("a.parquet", b"PAR1", r"no readable parquet file"),
        ("a.py", b"x", r"holds no \.txt"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize("path", [None, "/nowhere/at/all"])
def test_a_missing_folder_says_which_option(path: str | None) -> None:
    with pytest.raises(DataError, match=r"data\.options\.path=.*expected a folder"):
        files.open_source({"path": path}, Path(), quiet)


def test_long_texts_are_cut_at_line_ends_and_nothing_is_lost() -> None:
    text = "".join(f"line {number}\n" for number in range(50)) + "x" * 130
    pieces = list(cut(Document("a", text), 60))
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= 60 for piece in pieces)
    assert all(piece.text.endswith("\n") for piece in pieces[:-3])
    assert [piece.id for piece in pieces[:2]] == ["a#0000", "a#0001"]
    assert {piece.parent for piece in pieces} == {"a"}
    assert list(cut(Document("a", text), 1000)) == [Document("a", text)]


def test_synthetic_text_is_a_function_of_its_seed() -> None:
    def text(**options: int) -> list[Document]:
        return list(synthetic.open_source({"num_bytes": 20_000, **options}, Path(), quiet).documents())

    assert text() == text() != text(seed=1)
    assert 20_000 <= sum(len(document.text) for document in text()) < 24_000
    words = re.findall("[a-z]+", " ".join(document.text for document in text()).lower())
    assert len(set(words)) < len(words) / 2  # words come back, so there is something to learn


def make_wheel(folder: Path, name: str, modules: dict[str, bytes]) -> dict[str, str]:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for module, content in modules.items():
            archive.writestr(module, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return {"name": name, "version": "1.0", "filename": path.name, "sha256": file_sha256(path)}


OPTIONS = {"suffixes": [".py"], "exclude": ["*/locale/*"], "min_bytes": 10, "max_chars": 100}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip, by its own settings, takes wheels from."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def test_pypi_takes_text_from_wheels_that_pip_fetched(index: Path, tmp_path: Path) -> None:
    modules = {
        "zz/b.py": b"first = 1\r\nsecond = 2\r\n",
        "zz/a.py": "# Grüße\nlong = 1\n".encode() * 20,
        "zz/tiny.py": b"x=1",
        "zz/latin.py": b"# \xfcmlaut in latin-1\n",
        "zz/locale/de.py": b"excluded = True\n",
        "zz/data.json": b'{"not": "python"}',
    }
    wheel = make_wheel(index, "bpbenchcorpus", modules)
    source = pypi.PypiSource([wheel], OPTIONS, tmp_path / "downloads", quiet)
    documents = list(source.documents())
    assert [document.id for document in documents] == ["bpbenchcorpus/zz/a.py", "bpbenchcorpus/zz/b.py"]
    assert documents[0].text == "# Grüße\nlong = 1\n" * 5 + "# Grüße\n"  # cut at a line end
    assert documents[1].text == "first = 1\nsecond = 2\n"
    (index / wheel["filename"]).unlink()
    assert list(source.documents()) == documents  # kept: the index is not asked again


def test_pypi_refuses_a_wheel_with_another_hash(index: Path, tmp_path: Path) -> None:
    wheel = make_wheel(index, "bpbenchcorpus", {"zz/b.py": b"first = 1\n"})
    source = pypi.PypiSource([{**wheel, "sha256": "0" * 64}], OPTIONS, tmp_path / "downloads", quiet)
    with pytest.raises(DataError, match=r"pip could not download bpbenchcorpus==1\.0: ERROR"):
        list(source.documents())


def closure(requirements: list[str]) -> set[str]:
    """Normalised names of all distributions that these requirements can bring in, as far as they are installed."""
    names: set[str] = set()
    queue = list(requirements)
    while queue:
        name = re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", queue.pop().strip(), maxsplit=1)[0]).lower()
        if name not in names:
            names.add(name)
            try:
                queue += importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
    return names


def test_no_corpus_package_is_in_our_dependency_closure() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = closure([*project["dependencies"], *project["optional-dependencies"]["dev"]])
    assert {"sympy", "numpy"} <= names
    wheels = json.loads(pypi.MANIFEST.read_text())["wheels"]
    installed = [wheel["name"] for wheel in wheels if wheel["name"] in names and is_installed(wheel["name"])]
    assert installed == []
    assert all(wheel["filename"].endswith("-py3-none-any.whl") for wheel in wheels)
    assert all(re.fullmatch("[0-9a-f]{64}", wheel["sha256"]) for wheel in wheels)


def is_installed(name: str) -> bool:
    return any(importlib.metadata.distributions(name=name))


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_yaml_fits_the_schema_and_its_source(path: Path, tmp_path: Path) -> None:
    merged = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(path))
    config: Any = OmegaConf.to_container(merged)
    assert config["name"] == path.stem
    options = dict(config["options"])
    assert sum(read_fractions(options.pop("fractions", None)).values()) <= 0.5
    if config["name"] == "files":
        (tmp_path / "a.txt").write_text("text")
        options["path"] = str(tmp_path)
    source = load_source(config["source"], options, tmp_path, quiet)
    assert json.loads(json.dumps(source.identity())) == source.identity()


@pytest.mark.slow
def test_the_pinned_text_is_what_the_index_gives(tmp_path: Path) -> None:
    config: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "data" / "pypi.yaml"))
    corpus = open_corpus(config, tmp_path, quiet)
    assert corpus.text_sha256 == config["text_sha256"] and corpus.leak_rate == 0.0
