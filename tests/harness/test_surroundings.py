"""What a run inherits from the stock script's compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backends.base import search_path
from harness.surroundings import HEADERS, child_environment, copy_compiled, private_folders


def written(home: Path, *names: str) -> Path:
    private_folders(home)
    for name in names:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return home


def files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def test_products_and_headers_come_along_and_other_files_do_not(tmp_path: Path) -> None:
    compiled = {"compile_cache/fxgraph/ab/key", f"tmp/{HEADERS}/a.h", f"tmp/{HEADERS}/a.h.gch"}
    others = {"compile_cache/triton/__grp__kernel.json", "tmp/scratch", "tmp/torchinductor_other/scratch"}
    source = written(tmp_path / "stock", *compiled, *others)
    copy_compiled(source, tmp_path / "kept")
    home = tmp_path / "run"
    copy_compiled(tmp_path / "kept", home)
    private_folders(home)
    assert files(home) == compiled
    (home / "tmp" / HEADERS / "a.h.gch").write_text("changed by a run")
    assert (tmp_path / "kept" / "tmp" / HEADERS / "a.h.gch").read_text() != "changed by a run"


def test_headers_of_clang_stay_where_they_were_made(tmp_path: Path) -> None:
    source = written(tmp_path / "stock", f"tmp/{HEADERS}/a.h", f"tmp/{HEADERS}/a.h.pch")
    copy_compiled(source, tmp_path / "run")
    assert files(tmp_path / "run") == {f"tmp/{HEADERS}/a.h"}


def test_what_is_not_there_is_not_copied(tmp_path: Path) -> None:
    copy_compiled(tmp_path / "nowhere", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torch_keeps_them_there(tmp_path: Path) -> None:
    code = "from torch._inductor import codecache as c; print(c._HEADER_DIR); print(c.cache_dir())"
    environment = child_environment({}) | private_folders(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "tmp" / HEADERS), str(tmp_path / "compile_cache")]


def test_a_compiler_is_looked_for_where_a_child_looks() -> None:
    assert child_environment({})["PATH"] == search_path()
