"""A real device, from what it says of itself to an audited score: the processor here, an accelerator with --gpu.

Who has a card that was never tried needs no more than `pytest --gpu -n 0 tests/backends/test_on_device.py`.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from harness import assemble, fit, seeds, tasks
from harness.bench import LocalBench
from harness.compose import compose
from harness.config import BackendConfig
from harness.data import prepare
from harness.device import Device, probe
from harness.errors import ConfigError
from harness.records import Role, Status, StockTimes
from harness.sizes import stock_of
from harness.surroundings import child_environment

ACCELERATORS = ("cuda", "rocm", "mps")
# On the processor they are slow tests: it is the device of all other tests.
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.slow),
    *(pytest.param(name, marks=pytest.mark.gpu) for name in ACCELERATORS),
]
REFERENCE_TOKENS = {"cpu": 400_000}  # some seconds of training
ACCELERATOR_TOKENS = 8_000_000


def checked(name: str) -> str:
    if reason := import_module(f"backends.{name}").unavailable():
        pytest.skip(f"{name}: {reason}")
    return name


@pytest.fixture(params=DEVICES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return checked(request.param)


@pytest.fixture(scope="module")
def device(name: str) -> Device:
    return probe(BackendConfig(name=name), microprobes=True)


def on(device: Device, code: str) -> str:
    """What `code` prints in a process as the harness launches it; it finds the prepared backend as `backend`."""
    asked = f"{device.name!r}, {device.threads}, {device.dtype!r}"
    head = f"import torch, backends\nbackend = backends.load({asked})\nbackend.setup()\n"
    environment = {**child_environment(device.environment), "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        [sys.executable, "-c", head + code], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_it_says_what_it_is(device):
    again = probe(BackendConfig(name=device.name))
    assert again.identity == device.identity == json.loads(json.dumps(device.identity))
    assert device.microprobes is not None
    figures = {key: value for key, value in device.microprobes.items() if value is not None}
    assert "matmul_float32_gflops" in figures and all(value > 0 for value in figures.values())
    for node in device.device_nodes:
        assert stat.S_ISCHR(Path(node).stat().st_mode), node


def test_one_seed_gives_the_same_weights(device):
    code = """
from backends.base import seed_everything
seed_everything(2**62 + 7)
x = torch.randn(1000, device=backend.device)
print(x.cpu().double().sum().item(), torch.randperm(1000)[:5].tolist())
"""
    assert on(device, code) == on(device, code)


def test_products_run_in_the_chosen_dtype(device):
    code = """
a = torch.randn(64, 64, device=backend.device)
with backend.autocast():
    print(str((a @ a).dtype).removeprefix("torch."))
"""
    assert on(device, code) == device.dtype


def test_memory_is_counted_and_ends_at_the_cap(device):
    code = """
from backends.base import out_of_memory
before, held = backend.peak_memory_bytes(), torch.ones(256 << 20, device=backend.device)
backend.synchronize()
assert backend.peak_memory_bytes() - before >= 512 << 20, (before, backend.peak_memory_bytes())
cap = backend.memory_cap_bytes()
if cap is None:
    print("no cap")
else:
    try:
        torch.empty(cap, dtype=torch.uint8, device=backend.device)
        print("more than the cap")
    except RuntimeError as error:
        print("out of memory" if out_of_memory(error) else repr(error))
"""
    assert on(device, code) == ("no cap" if device.name == "cpu" else "out of memory")


def test_the_attention_that_it_offers_works(device):
    if device.name == "cpu":
        pytest.skip("tests/backends/test_contract.py asks the processor")
    code = """
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
half = torch.bfloat16 if backend.dtype == "bfloat16" else torch.float32
def heads(grad=True):
    return torch.randn(1, 2, 128, 64, dtype=half, device=backend.device, requires_grad=grad)
offered, plain = backend.attention(), torch.nn.functional.scaled_dot_product_attention
plain(heads(), heads(), heads(), is_causal=True).sum().backward()
if offered.flash_sdpa:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        plain(heads(), heads(), heads(), is_causal=True).sum().backward()
if offered.flex_forward:
    torch.compile(flex_attention)(heads(False), heads(False), heads(False))
if offered.flex_backward:
    torch.compile(flex_attention)(heads(), heads(), heads()).sum().backward()
if offered.varlen:
    from torch.nn.attention.varlen import varlen_attn
    ends = torch.tensor([0, 50, 128], dtype=torch.int32, device=backend.device)
    q, k, v = (torch.randn(128, 2, 64, dtype=half, device=backend.device, requires_grad=True) for _ in range(3))
    varlen_attn(q, k, v, ends, ends, 78, 78).sum().backward()
backend.synchronize()
print("all")
"""
    assert on(device, code) == "all"


@contextmanager
def bench_on(name: str, clock: str, *, compiled: bool = False) -> Iterator[LocalBench]:
    """The bench of a session on `demo`'s script, behind the best walls here."""
    config = compose(["task=demo", "data=synthetic", "agent=noop", f"backend={name}", f"budget.clock={clock}"])
    config.task.reference_tokens = REFERENCE_TOKENS.get(name, ACCELERATOR_TOKENS)
    # The limits also decide how long calibration takes.
    config.task.min_budget_seconds, config.task.max_budget_seconds = 0.1, 60.0
    config.task.compile, config.task.max_setup_seconds = compiled, 240.0
    config.task.max_memory_bytes = 16 << 30  # compiling for a GPU takes a process a core
    with fit.alone(config.backend, lambda _: None) as device:
        config.task.clock = assemble.choose_clock(config, device)
        data = prepare(config, lambda _: None)
        with tasks.a_bench(config, device, data, lambda _: None) as bench:
            yield bench


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(("clock", "compiled"), [("wall", False), ("wall", True), ("metered", False)])
def test_a_run_from_calibration_to_score(bpbench_home, name, clock, compiled):
    checked(name)
    if clock == "metered" and name != "cpu":
        with pytest.raises(ConfigError, match="processors only"), bench_on(name, clock):
            pass
        return
    with bench_on(name, clock, compiled=compiled) as bench:
        stock = stock_of(bench.task)
        made = bench.calibrate(stock, seeds.derive("on device"), bench.task.sigma_prior_bpb)
        result = bench.knowing(made, StockTimes()).run("run-000", stock, 1, "val", Role.BASELINE)
    assert result.status is Status.OK, result
    assert result.bpb is not None and 0.2 < result.bpb < 8, result.bpb
    assert result.audit is not None and result.peak_memory_bytes, result
    seen = (result.curve[-1].tokens or 0) / bench.task.reference_tokens
    assert 0.5 < seen < 2, "calibrated, the stock script sees about its reference tokens"
    if clock == "wall":
        assert len(result.sentinel) == 2 and all(speed > 0 for speed in result.sentinel)
    else:
        assert result.metered is not None
        assert result.metered.used_tokens == pytest.approx(result.metered.budget_tokens, rel=0.02)
