"""The stock train.py: what it promises the scorer, its optimizer, its schedule, and its golden curves."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import golden_runs
import pytest
import torch
import yaml
from golden_runs import TASK

from harness import knobs
from trainer import play

ROOT = play.STOCK.parents[1]
# The null backend takes nearly the same kernels everywhere: 1.5e-5 was seen between two makers of processors.
TOLERANCE = {"null": 1e-4, "cpu": 2e-3}


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Iterator[ModuleType]:
    """train.py with the small knobs of the golden runs. One thread: at this size a second one only gets in the way."""
    script = tmp_path_factory.mktemp("stock") / "train.py"
    script.write_text(play.set_knobs(play.STOCK.read_text(), golden_runs.KNOBS))
    spec = importlib.util.spec_from_file_location("small_train", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(threads)


@pytest.fixture
def model(train):
    """With weights that no initial zeros hide."""
    torch.manual_seed(0)
    model = train.build_model(TASK).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_no_position_sees_what_comes_after_it(model):
    torch.manual_seed(1)
    tokens = torch.randint(256, (3, 32))
    with torch.inference_mode():
        before = model(tokens)
        assert before.shape == (3, 32, 256) and before.dtype == torch.float32
        for cut in (1, 2, 15, 31):
            changed = tokens.clone()
            changed[:, cut:] = (changed[:, cut:] + 1) % 256
            after = model(changed)
            torch.testing.assert_close(after[:, :cut], before[:, :cut], rtol=0, atol=1e-5)
            assert (after[:, cut] - before[:, cut]).abs().amax(-1).min() > 1e-3


def test_every_earlier_position_is_seen(model):
    torch.manual_seed(1)
    tokens = torch.randint(256, (1, 32))
    with torch.inference_mode():
        before = model(tokens)[0, -1]
        for position in range(32):
            changed = tokens.clone()
            changed[0, position] += 1 if changed[0, position] < 255 else -1
            assert not torch.equal(model(changed)[0, -1], before), position


def test_rows_do_not_mix_and_answers_repeat(model):
    torch.manual_seed(1)
    tokens = torch.randint(256, (4, 32))
    with torch.inference_mode():
        together = model(tokens)
        assert torch.equal(model(tokens), together)
        alone = model(tokens[2:3])
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-5)


def test_a_shorter_text_is_fine(model):
    tokens = torch.randint(256, (2, 32))
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens[:, :5]), model(tokens)[:, :5], rtol=0, atol=1e-5)


def test_the_first_prediction_is_uniform(train):
    logits = train.build_model(TASK)(torch.randint(256, (2, 32)))
    assert logits.abs().max() == 0


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 128, 64), (2, 64, 128), (1, 48, 16)])
def test_orthogonalize_keeps_directions_and_evens_out_sizes(train, shape):
    torch.manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sizes = torch.logspace(0, -2, u.size(2))
    result = train.orthogonalize(u @ torch.diag(sizes) @ vt)
    assert result.shape == shape
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.8 and values.max() < 1.2
    # The answer is u @ vt but for the sizes: what is left in its own frame is a diagonal.
    frame = u.mT @ result @ vt.mT
    assert (frame - torch.diag_embed(frame.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3


def test_muon_updates_the_matrices_of_a_stack_one_by_one(train):
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 8, 8), torch.randn(2, 3, 8, 8)
    stack = torch.nn.Parameter(start.clone())
    singles = [torch.nn.Parameter(matrix.clone()) for matrix in start]
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    stacked, separate = train.Muon([stack], **settings), [train.Muon([single], **settings) for single in singles]
    for gradient in gradients:
        stack.grad = gradient.clone()
        stacked.step()
        for single, optimizer, part in zip(singles, separate, gradient, strict=True):
            single.grad = part.clone()
            optimizer.step()
    torch.testing.assert_close(stack.detach(), torch.stack([single.detach() for single in singles]))
    assert not torch.equal(stack.detach(), start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_and_its_gradient_are_those_of_cross_entropy(train, dtype):
    torch.manual_seed(0)
    logits = (4 * torch.randn(300, 256)).to(dtype)
    targets = torch.randint(256, (300,))
    ours = logits.clone().requires_grad_()
    theirs = logits.double().requires_grad_()
    loss, expected = train.CrossEntropy.apply(ours, targets), torch.nn.functional.cross_entropy(theirs, targets)
    (2 * loss).backward()
    (2 * expected).backward()
    rounding = torch.finfo(dtype).eps
    assert loss.item() == pytest.approx(expected.item(), rel=rounding)
    assert (ours.grad - theirs.grad).abs().max() < 2 / 300 * 4 * rounding


def test_every_parameter_is_trained_once(train, model):
    groups = [group for optimizer in train.build_optimizers(model) for group in optimizer.param_groups]
    trained = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())


def test_batches_visit_every_window_once_a_round(train, monkeypatch):
    monkeypatch.setattr(train, "BATCH_SIZE", 4)
    stream = torch.arange(12 * 32 + 5).to(torch.uint16)
    drawn = list(itertools.islice(train.batches(stream, TASK, torch.device("cpu")), 6))
    for inputs, targets in drawn:
        assert inputs[:, 0].tolist() == [TASK.bos_token] * 4
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert inputs.dtype == targets.dtype == torch.int64
    for first in (0, 3):
        seen = sorted(row for _, targets in drawn[first : first + 3] for row in targets.tolist())
        assert seen == stream[: 12 * 32].long().view(12, 32).tolist()


def test_learning_rates_rise_stay_and_fall(train):
    factors = [train.lr_factor(i / 1000) for i in range(1001)]
    assert 0 < factors[0] < 0.2
    assert max(factors) == 1.0
    assert factors[-1] == pytest.approx(train.FINAL_LR)
    top = factors.index(1.0)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


@pytest.mark.parametrize("path", sorted((ROOT / "conf/task").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_knobs_of_every_task_fit_the_script(path):
    task = yaml.safe_load(path.read_text())
    values = task["knobs"]
    source = knobs.stock_source(play.STOCK, values, task.get("ranges"))
    assert {name: knobs.parse(source)[name].value for name in values} == values


def test_a_misspelt_knob_is_named():
    with pytest.raises(ValueError, match="NUM_LAYER:"):
        play.set_knobs(play.STOCK.read_text(), {"NUM_LAYER": "2"})


@pytest.fixture(scope="module")
def golden_plays(tmp_path_factory) -> dict[str, tuple[Path, play.Played]]:
    """A run on each backend, at the same time: nearly all of it is importing torch."""
    folders = [tmp_path_factory.mktemp(backend) for backend in golden_runs.BACKENDS]
    with ThreadPoolExecutor() as pool:
        played = list(pool.map(golden_runs.run, folders, golden_runs.BACKENDS))
    return dict(zip(golden_runs.BACKENDS, zip(folders, played, strict=True), strict=True))


@pytest.mark.parametrize("backend", golden_runs.BACKENDS)
def test_golden_curve(golden_plays, backend):
    folder, played = golden_plays[backend]
    golden = json.loads((golden_runs.GOLDEN / f"{backend}.json").read_text())
    assert played.status == 0
    assert [message["step"] for message in played.log] == list(range(1, golden_runs.NUM_STEPS + 1))
    assert [message["loss"] for message in played.log] == pytest.approx(golden, abs=TOLERANCE[backend])
    assert golden[0] > 5.5 and golden[-1] < golden[0] - 0.1  # ln 256 at first, and it learns
    snapshot = folder / "model.safetensors"
    snapshot.write_bytes(played.snapshot)
    bpb = play.validate(folder / "train.py", snapshot, folder, TASK, golden_runs.device(backend))
    assert bpb < 5  # 8 bits a byte is knowing nothing


class ClockedRun:
    """A run on a clock of its own: 0.01 of the budget a step, and half as much again now and then, 0.03 a snapshot.

    At the start one step stalls for a fifth of the budget.
    """

    def __init__(self) -> None:
        self.task, self.device, self.seed = TASK, torch.device("cpu"), 0
        self.now, self.saved = 0.0, []

    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def start(self) -> torch.Tensor:
        return (torch.arange(64 * 32) % 255).to(torch.uint16)

    def progress(self) -> float:
        return min(self.now, 1.0)

    def log(self, *, step, loss, tokens) -> None:
        self.now += 0.2 if step == 5 else 0.015 if step % 10 == 0 else 0.01

    def save(self, model) -> None:
        self.now += 0.03
        self.saved.append(self.now)


def test_the_last_snapshot_is_in_before_the_deadline(train, monkeypatch):
    run = ClockedRun()
    monkeypatch.setattr(train.lab, "open", lambda: run)
    train.main()
    early, last = run.saved
    assert early == pytest.approx(train.SNAPSHOT_AT, abs=0.15)
    assert 0.9 < last < 1.0
