"""What trains, serves and scores needs torch, numpy, tiktoken and safetensors, and no other package.

A machine with a GPU often has nothing else. Preparing text needs more, and can be done elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires

import pytest

SCRIPT = """
import importlib, importlib.abc, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

OURS = {"trainer", "backends"}
names = {name: {o.lower().replace("_", "-") for o in owners} for name, owners in packages_distributions().items()}
allowed = set(sys.argv[1].split(","))

class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        owners = names.get(top)
        hidden = owners and top not in OURS and not owners & allowed
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path = [Wall() if finder is PathFinder else finder for finder in sys.meta_path]
for blocked in ("scipy", "psutil", "pyarrow", "rich"):
    try:
        importlib.import_module(blocked)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{blocked} got through the wall")
for module in sys.argv[2:]:
    importlib.import_module(module)

import numpy, torch
import backends
backend = backends.load("cpu", 1, "float32")
backend.setup()
backend.identity(), backend.environment(), backend.peak_memory_bytes()
from trainer.trusted.stats import mean_bounds
mean_bounds(numpy.arange(9.0))
from trainer.trusted import scorer
class Nobody:
    def start(self, phase):
        return None
    def stop(self):
        pass
task = {
    "name": "x", "vocab_size": 2, "sequence_length": 2, "reference_tokens": 1, "bos_token": 0, "eval_batch_size": 1,
    "compile": False,
}
message = {"data_dir": "/nowhere", "split": "val", "task": task, "backend": {"name": "cpu"}}
try:
    scorer.evaluate(scorer.Request.from_message(message), Nobody())
    raise SystemExit("it scored without a text")
except FileNotFoundError:
    pass
model = torch.nn.Linear(4, 4)
torch.optim.AdamW(model.parameters(), fused=True)
print("ok")
"""
MODULES = (
    *(f"backends.{name}" for name in ("cpu", "cuda", "mps", "null", "rocm", "probe", "microprobes")),
    *(f"trainer.{name}" for name in ("lab", "play", "server", "task", "train", "trusted.scorer", "wire")),
)


def closure(package: str) -> set[str]:
    """A package and what it requires here, by distribution name."""
    from packaging.requirements import Requirement

    found, waiting = set(), [package]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except ModuleNotFoundError:
            continue
        for need in map(Requirement, lines):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name.lower().replace("_", "-"))
    return found


def test_no_other_package_is_needed():
    pytest.importorskip("packaging")
    allowed = set().union(*map(closure, ("torch", "numpy", "tiktoken", "safetensors")))
    assert not allowed & {"scipy", "psutil", "hydra-core", "rich"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, ",".join(allowed), *MODULES], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "ok", done.stderr[-2000:]
