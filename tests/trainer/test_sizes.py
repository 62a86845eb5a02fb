"""Each task's model as it is really built: what harness/sizes.py says of it must be true."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from harness import knobs, sizes
from trainer.task import Task

NO_MEMORY = FakeTensorMode()  # shapes and operations, no numbers
# Parameters, in millions: what the documentation says.
MILLIONS = {"demo": 2.3, "nano": 5.6, "micro": 12.1, "small": 21.5, "full": 51.9}


@pytest.fixture(params=sizes.known(), ids=lambda size: size.task.name)
def size(request) -> sizes.Size:
    return request.param


def build(size: sizes.Size, tmp_path) -> torch.nn.Module:
    """The stock model at this size, without memory behind it."""
    script = tmp_path / "train.py"
    script.write_text(sizes.stock_of(size.task))
    spec = importlib.util.spec_from_file_location(f"train_{size.task.name}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task = size.task
    sizes_ = (task.vocab_size, task.sequence_length, task.reference_tokens, 0, task.eval_batch_size, task.compile)
    with NO_MEMORY:
        return module.build_model(Task(task.name, *sizes_))


def test_parameters_and_arithmetic_are_what_is_said(size, tmp_path):
    model = build(size, tmp_path)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == size.num_parameters
    assert count / 1e6 == pytest.approx(MILLIONS[size.task.name], abs=0.05)
    length = size.task.sequence_length
    with NO_MEMORY, FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.int64)).sum().backward()
    # The counter does not know that causal attention needs half of the products.
    attention = 6 * size.constants["NUM_LAYERS"] * length * size.constants["MODEL_WIDTH"]
    assert counter.get_total_flops() / length == pytest.approx(size.flops_per_token + attention, rel=0.01)


def test_evaluation_is_as_large_as_the_design_says(size):
    task = size.task
    tokens = task.num_eval_windows * task.sequence_length
    assert tokens <= (1_000_000 if task.name in ("small", "full") else 250_000)
    assert task.audit_cuts == (512 if task.name == "demo" else 1024)
    assert (task.num_eval_windows + 4) % task.eval_batch_size == 0, "batches are full"
    assert task.num_decoy_tokens >= 2 * task.sequence_length


def test_full_is_what_the_field_has_published_numbers_for():
    (full,) = (size.task for size in sizes.known() if size.task.name == "full")
    assert (full.vocab_size, full.sequence_length, full.reference_tokens) == (8192, 2048, 500_000_000)


def test_a_task_may_bring_ranges_of_its_own(size):
    parsed = knobs.parse(sizes.stock_of(size.task))
    assert {name: parsed[name].range_text for name in size.task.ranges} == size.task.ranges
    stock = knobs.parse(sizes.STOCK.read_text())
    assert list(parsed) == list(stock)
    assert all(parsed[name].range_text == stock[name].range_text for name in set(stock) - set(size.task.ranges))


def test_what_was_never_run_says_so(size):
    task = size.task
    assert task.device_class
    assert (task.measured_on is None) == (task.name in ("micro", "small", "full"))
    assert bool(task.reference_bpb) == (task.measured_on is not None)
    assert all(low < high for low, high in task.reference_bpb.values())
