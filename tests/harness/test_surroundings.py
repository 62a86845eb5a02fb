"""What a run inherits from the stock script's compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.surroundings import child_environment, copy_compiled, private_folders

HEADERS = "tmp/torchinductor_bpbench/precompiled_headers"


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
    compiled = {"compile_cache/fxgraph/ab/key", f"{HEADERS}/a.h", f"{HEADERS}/a.h.gch"}
    others = {
        "compile_cache/triton/__grp__kernel.json",
        "tmp/scratch",
        "tmp/torchinductor_bpbench/scratch",
        "notes.txt",
    }
    source = written(tmp_path / "stock", *compiled, *others)
    copy_compiled(source, tmp_path / "kept")
    home = tmp_path / "run"
    copy_compiled(tmp_path / "kept", home)
    private_folders(home)
    assert files(home) == compiled
    (home / HEADERS / "a.h.gch").write_text("changed by a run")
    assert (tmp_path / "kept" / HEADERS / "a.h.gch").read_text() != "changed by a run"


def test_headers_of_clang_stay_where_they_were_made(tmp_path: Path) -> None:
    source = written(tmp_path / "stock", f"{HEADERS}/a.h", f"{HEADERS}/a.h.pch")
    copy_compiled(source, tmp_path / "run")
    assert files(tmp_path / "run") == set()


def test_what_is_not_there_is_not_copied(tmp_path: Path) -> None:
    copy_compiled(tmp_path / "nowhere", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["codecache._HEADER_DIR", "runtime.cache_dir_utils.cache_dir()"])
def test_torch_keeps_them_there(tmp_path: Path, place: str) -> None:
    module, name = place.rsplit(".", 1)
    code = f"import importlib; m = importlib.import_module('torch._inductor.{module}'); print(m.{name})"
    environment = child_environment({}) | private_folders(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = Path(done.stdout.strip()).relative_to(tmp_path)
    assert str(found) in (HEADERS, "compile_cache")
