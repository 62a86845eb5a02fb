"""Every variant of the studies fits the stock train.py, differs from it, trains and does not look ahead."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from harness import knobs
from harness.errors import ConfigError
from harness.sizes import TASKS, load, stock_of
from leaderboard.study import portability, sweep, variants
from leaderboard.study.variants import STOCK, Variant
from trainer.task import Task

FILES = {"portability": portability.VARIANTS, "sweep": sweep.VARIANTS}
KNOWN = {f"{study}-{item.name}": item for study, path in FILES.items() for item in variants.load(path)}
TASK = Task(
    "small", vocab_size=300, sequence_length=32, reference_tokens=5120, bos_token=299, eval_batch_size=8, compile=False
)
STEPS = 10


class StepRun:
    """The outside world of train.py, ten steps long."""

    def __init__(self) -> None:
        self.task, self.device, self.seed = TASK, torch.device("cpu"), 0
        self.losses: list[float] = []
        self.saved: list[dict[str, torch.Tensor]] = []

    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def start(self) -> torch.Tensor:
        return (torch.arange(256 * 32) % 299).to(torch.uint16)

    def progress(self) -> float:
        return min(1.0, len(self.losses) / STEPS)

    def log(self, *, step, loss, tokens) -> None:
        assert tokens > 0 and step == len(self.losses) + 1
        self.losses.append(float(loss))

    def save(self, model) -> None:
        self.saved.append({name: tensor.clone() for name, tensor in model.state_dict().items()})


@pytest.fixture(scope="module")
def stock() -> str:
    """Of task=tiny, with two layers, so that no variant of layers is empty."""
    return knobs.apply(stock_of(load(TASKS / "tiny.yaml")), {"NUM_LAYERS": 2, "BATCH_SIZE": 8})


def load_module(source: str, folder: Path) -> ModuleType:
    script = folder / "train.py"
    script.write_text(source)
    spec = importlib.util.spec_from_file_location("variant_train", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named_once() -> Iterator[object]:
    """Each patch is tried in the default run, with the first variant that has it; values alone are not."""
    seen: set[str] = set()
    for name, item in KNOWN.items():
        yield pytest.param(name, marks=[pytest.mark.slow] if seen.issuperset(item.patches) else [])
        seen.update(item.patches)


@pytest.mark.parametrize("name", list(named_once()))
def test_a_variant_trains_and_is_causal(name, stock, tmp_path, monkeypatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module, run = load_module(KNOWN[name].source(stock), tmp_path), StepRun()
        monkeypatch.setattr(module.lab, "open", lambda: run)
        torch.manual_seed(0)
        module.main()
        assert len(run.losses) >= STEPS - 4 and len(run.saved) >= 1
        assert run.losses[-1] < run.losses[0]

        model = module.build_model(TASK).eval()
        model.load_state_dict(run.saved[-1])
        # Weights that no initial zeros hide: else a look ahead would have no effect yet.
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        tokens = torch.randint(299, (2, 32))
        with torch.inference_mode():
            before = model(tokens)
            assert before.shape == (2, 32, 300) and before.dtype == torch.float32
            for cut in (1, 15, 31):
                changed = tokens.clone()
                changed[:, cut:] = (changed[:, cut:] + 1) % 299
                torch.testing.assert_close(model(changed)[:, :cut], before[:, :cut], rtol=0, atol=1e-4)
            assert not torch.equal(model(changed)[:, 31], before[:, 31])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("task", ["nano_study", pytest.param("nano", marks=pytest.mark.slow)])
@pytest.mark.parametrize("study", FILES)
def test_variants_are_all_different(study, task) -> None:
    stock = stock_of(load(TASKS / f"{task}.yaml"))
    sources = [item.source(stock) for item in variants.load(FILES[study])]
    assert sources[0] == stock
    assert len(set(sources)) == len(sources)


def test_half_of_the_portability_variants_are_close_to_stock_at_any_cut() -> None:
    close = [item.close for item in variants.load(portability.VARIANTS)[1:]]
    assert len(close) >= 10
    for end in range(2, len(close) + 1, 2):
        assert sum(close[:end]) == end // 2


def test_every_patch_is_used() -> None:
    used = {patch for item in KNOWN.values() for patch in item.patches}
    assert used == {path.stem for path in variants.PATCHES.glob("*.txt")}


def test_a_variant_that_does_not_fit_is_named(stock) -> None:
    good = Variant("odd", "", patches=["gelu"])
    for wrong, what in (
        (replace(good, patches=["gelu", "gelu"]), "matches 0 times"),
        (replace(good, patches=["no_such"]), "no patch 'no_such'"),
        (replace(good, knobs={"NUM_LAYERS": 99}), "outside its search range"),
        (replace(good, factors={"LAYERS": 2.0}), "no knob LAYERS"),
    ):
        with pytest.raises(ConfigError, match=f"variant odd .*{what}"):
            wrong.source(stock)


def test_a_wrong_entry_is_refused(tmp_path) -> None:
    path = tmp_path / "study.yaml"
    for text, what in (("- {name: a}", "expected name"), ("- {name: a, about: b, knob: 1}", "knob"),
                       (f"- {{name: {STOCK}, about: b}}", "called stock")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match=what):
            variants.load(path)
