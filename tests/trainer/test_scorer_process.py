"""The scorer as a real process, against real and against hostile servers. This file plays the runner."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from scorer_cases import NUM_CUTS, TASK, Bigram, score, write_data

from trainer import server, train, wire
from trainer.trusted.buffers import InputBuffer, OutputBuffer
from trainer.trusted.remote import Deadline, EvaluationFailed, RemoteServers

BACKEND = {"name": "cpu", "threads": 1, "dtype": "float32"}
STOCK = """
import torch
from torch import nn

class Bigram(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocab_size, vocab_size))

    def forward(self, tokens):
        return self.table[tokens]

def build_model(task):
    return Bigram(task.vocab_size)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def box(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(STOCK)
    safetensors.torch.save_file(dict(Bigram().state_dict()), tmp_path / "model.safetensors")
    return tmp_path


COMPILED = """
from torch.nn.attention.flex_attention import flex_attention

def never(graph, inputs):
    raise AssertionError("it was compiled")

class Compiled(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.bigram = torch.compile(Bigram(vocab_size), backend=never, fullgraph=True)
        self.attention = torch.compile(flex_attention, backend=never)

    def forward(self, tokens):
        rows = torch.ones(len(tokens), 1, tokens.shape[1], 16)
        return self.bigram(tokens) + 0 * self.attention(rows, rows, rows).mean()

def build_model(task):
    return Compiled(task.vocab_size)
"""


def spawn(argv: list[str], cwd: Path) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    environ = os.environ | {"BPBENCH_FD": str(theirs.fileno()), "OMP_NUM_THREADS": "1"}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *argv], cwd=cwd, env=environ, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
        )
    return process, ours


def evaluate(data: Path, cwd: Path, server_argv: list[str], **changes: Any) -> dict[str, Any]:
    """Run the scorer to its end, with servers started as asked."""
    scorer, sock = spawn(["-I", "-m", "trainer.trusted.scorer"], cwd)
    task = TASK | {"audit_cuts": NUM_CUTS}
    request = {"data_dir": str(data), "split": "val", "task": task, "backend": BACKEND, "max_eval_seconds": None}
    model: subprocess.Popen[bytes] | None = None
    with sock, scorer:
        wire.send(sock, request | changes)
        while True:
            message, _ = wire.receive(sock, 60)
            if message["op"] == "server":
                model, theirs = spawn(server_argv, cwd)
                with theirs:
                    wire.send(sock, {"ok": True}, [theirs.fileno()])
                continue
            if message["op"] == "work":
                wire.send(sock, {"ok": True, "seconds": time.monotonic()})
                continue
            if model:
                model.kill()
                model.communicate()
                model = None
            if message["op"] == "result":
                assert scorer.wait(30) == 0
                return message
            wire.send(sock, {"ok": True})


def test_real_processes_agree_with_the_scorer_in_this_one(data: Path, box: Path) -> None:
    result = evaluate(data, box, ["-m", "trainer.server"])
    expected = score(data, Bigram)
    assert (result["status"], result["code"], result["reason"]) == ("ok", None, None)
    assert result["bpb"] == expected.bpb
    assert (result["num_bytes"], result["num_tokens"]) == (expected.num_bytes, expected.num_tokens)
    assert result["audit"] == {
        "num_uniform": 128,
        "mean_nats": 0.0,
        "lower_nats": 0.0,
        "upper_nats": 0.0,
        "num_large_uniform": 0,
        "num_targeted": 128,
        "num_large_positive": 0,
        "num_large_negative": 0,
    }
    assert result["bulk_seconds"] > 0
    assert result["audit_seconds"] > 0


PREAMBLE = """
import os, sys, time
from trainer import wire
sock = wire.connect()
setup, (tokens, logits) = wire.receive(sock)
"""


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("raise SystemExit", "server_start"),
        ("sock.sendall(b'[' * 70000)", "server_start"),
        ("wire.send(sock, {'ok': False, 'code': 'load'}); time.sleep(99)", "load"),
        ("wire.send(sock, {'ok': False, 'code': ['ok', 0.3], 'bpb': 0.1}); time.sleep(99)", "forward"),
        ("wire.send(sock, {'ok': True}); wire.receive(sock)", "load"),
        ("wire.send(sock, {'ok': True}); wire.receive(sock)\n" * 2, "forward"),
        (
            "wire.send(sock, {'ok': True}); wire.receive(sock)\n" * 2 + "wire.send(sock, {'ok': True}); time.sleep(99)",
            "non_finite",
        ),
    ],
)
def test_hostile_servers_end_with_a_fixed_code(data: Path, tmp_path: Path, script: str, code: str) -> None:
    result = evaluate(data, tmp_path, ["-c", PREAMBLE + script])
    assert (result["status"], result["code"], result["bpb"]) == ("crash", code, None)
    assert "\n" not in result["reason"]


@pytest.mark.slow
def test_a_server_compiles_nothing(data: Path, box: Path) -> None:
    """Not even FlexAttention, or what insists on a whole graph; and tensors keep the names of a compiled module."""
    plain = evaluate(data, box, ["-m", "trainer.server"])
    (box / "train.py").write_text(STOCK + COMPILED)
    weights = {f"bigram._orig_mod.{name}": value for name, value in Bigram().state_dict().items()}
    safetensors.torch.save_file(weights, box / "model.safetensors")
    result = evaluate(data, box, ["-m", "trainer.server"])
    assert (result["status"], result["bpb"]) == ("ok", plain["bpb"]), result


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch\n@torch.compile\ndef orthogonal(x):\n    return x\n", True),
        ("import torch\nstep = torch.compile(step)\n", True),
        ("class GPT:\n    def __init__(self):\n        self.block = torch.compile(Block())\n", True),
        ("def build_model(task):\n    return torch.compile(GPT(task))\n", True),
        ("from torch.nn.attention.flex_attention import flex_attention\n", True),
        ("def main():\n    model = torch.compile(model)\n", False),
        (Path(train.__file__).read_text(), False),
        ("def broken(:\n", True),
    ],
)
def test_a_server_imports_the_compiler_beforehand_where_a_model_needs_it(source: str, expected: bool) -> None:
    """Its import takes seconds, which would be taken for the model's own work."""
    assert server.uses_compiler(source) == expected


def test_silence_and_dripping_bytes_are_timeouts(data: Path, tmp_path: Path) -> None:
    drip = PREAMBLE + "\nwhile True: sock.sendall(b' '); time.sleep(0.02)"
    for script in (PREAMBLE + "time.sleep(99)", drip):
        result = evaluate(data, tmp_path, ["-c", script], max_eval_seconds=1.0)
        assert (result["status"], result["code"]) == ("crash", "eval_timeout")


def test_unfit_data_end_the_scorer_with_one_line(data: Path, tmp_path: Path) -> None:
    scorer, sock = spawn(["-I", "-m", "trainer.trusted.scorer"], tmp_path)
    with sock, scorer:
        wire.send(sock, {"data_dir": str(data), "split": "secret", "task": TASK, "backend": BACKEND})
        with pytest.raises(ConnectionError):
            wire.receive(sock, 60)
        stderr = scorer.communicate()[1].decode()
    assert scorer.returncode == 1
    assert stderr.count("\n") == 1
    assert "split='secret'" in stderr


class ThreadedRunner:
    """Runs `trainer.server` in threads of this process: the same code without the seconds of importing torch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, box: Path) -> None:
        self.monkeypatch = monkeypatch
        monkeypatch.chdir(box)
        self.ours, self.theirs = socket.socketpair()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.theirs.close()
        self.thread.join()
        self.ours.close()

    def serve(self) -> None:
        while True:
            try:
                message, _ = wire.receive(self.ours)
            except ConnectionError:
                return
            if message["op"] in ("stop", "work"):
                wire.send(self.ours, {"ok": True})
                continue
            near, far = socket.socketpair()
            self.monkeypatch.setenv("BPBENCH_FD", str(far.detach()))
            threading.Thread(target=server.main, daemon=True).start()
            with near:
                wire.send(self.ours, {"ok": True}, [near.fileno()])


def forward_once(monkeypatch: pytest.MonkeyPatch, box: Path, vocab: int = 64) -> np.ndarray:
    runner = ThreadedRunner(monkeypatch, box)
    setup = {"task": TASK, "backend": BACKEND, "batch_shape": [2, 32], "vocab_size": vocab}
    with contextlib.closing(runner):
        servers = RemoteServers(runner.theirs, setup, Deadline.after(60))
        remote = servers.start("bulk")
        tokens = np.arange(64).reshape(2, 32)
        try:
            remote.forward(tokens)
            return np.stack([remote.read(row, 0, 32) for row in range(2)])
        finally:
            servers.stop()


def test_server_answers_with_the_saved_weights(monkeypatch: pytest.MonkeyPatch, box: Path) -> None:
    logits = forward_once(monkeypatch, box)
    assert np.array_equal(logits.reshape(64, 64), Bigram().table.detach().numpy())


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (("def build_model", "def build"), "load"),
        (("zeros(vocab_size, vocab_size)", "zeros(vocab_size, 2)"), "load"),
        (("self.table = ", "self.extra = nn.Linear(1, 1); self.table = "), "load"),
        (("import torch\n", "import torch\nopen('val.npy')\n"), "load"),
        (("return self.table[tokens]", "raise KeyError"), "forward"),
        (("return self.table[tokens]", "return None"), "forward"),
        (("return self.table[tokens]", "return self.table[tokens][:1]"), "shape"),
        (("return self.table[tokens]", "return self.table[tokens][..., :9]"), "shape"),
    ],
)
def test_server_failures_have_codes(
    monkeypatch: pytest.MonkeyPatch, box: Path, edit: tuple[str, str], code: str
) -> None:
    assert edit[0] in STOCK
    (box / "train.py").write_text(STOCK.replace(*edit, 1))
    with pytest.raises(EvaluationFailed) as failed:
        forward_once(monkeypatch, box)
    assert failed.value.code == code


def test_the_server_evaluates_without_dropout_and_gradients(monkeypatch: pytest.MonkeyPatch, box: Path) -> None:
    source = STOCK.replace(
        "return self.table[tokens]", "return self.table[tokens] + self.training + torch.is_grad_enabled()"
    )
    (box / "train.py").write_text(source)
    assert np.array_equal(forward_once(monkeypatch, box).reshape(64, 64), Bigram().table.detach().numpy())


@pytest.mark.skipif(sys.platform != "linux", reason="seals are Linux's")
@pytest.mark.parametrize(
    "tamper",
    [
        lambda fd: os.ftruncate(fd, 0),
        lambda fd: os.ftruncate(fd, 1 << 20),
        lambda fd: os.write(os.open(f"/proc/self/fd/{fd}", os.O_RDWR), b"x"),
    ],
)
def test_the_servers_end_of_the_tokens_changes_nothing(tamper: Callable[[int], object]) -> None:
    buffer = InputBuffer(64)
    tokens = np.arange(8)
    buffer.write(tokens)
    with pytest.raises(OSError):
        tamper(buffer.reader_fd)
    assert np.array_equal(np.frombuffer(os.pread(buffer.reader_fd, 99, 0), np.int64), tokens)
    buffer.write(tokens + 1)
    assert np.array_equal(np.frombuffer(os.pread(buffer.reader_fd, 99, 0), np.int64), tokens + 1)
    buffer.close()


def test_logits_are_nan_until_written_and_private_once_read() -> None:
    buffer = OutputBuffer(300_000)
    buffer.fill_nan()
    before = buffer.read(0, 300_000)
    assert before is not None
    assert np.isnan(before).all()
    os.pwrite(buffer.fd, np.float32([1, 2]).tobytes(), 4 * 299_998)
    read = buffer.read(299_997, 3)
    os.pwrite(buffer.fd, np.float32([9, 9]).tobytes(), 4 * 299_998)
    assert read is not None
    assert np.isnan(read[0])
    assert read[1:].tolist() == [1, 2]
    assert buffer.read(299_999, 2) is None
    buffer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="seals are Linux's")
def test_logits_cannot_be_cut_short() -> None:
    buffer = OutputBuffer(16)
    with pytest.raises(PermissionError):
        os.ftruncate(buffer.fd, 8)
    buffer.close()


def test_a_killed_server_is_a_crash_of_the_forward(data: Path, tmp_path: Path) -> None:
    script = PREAMBLE + "wire.send(sock, {'ok': True}); wire.receive(sock)\n" * 2 + "os.kill(os.getpid(), 9)"
    assert evaluate(data, tmp_path, ["-c", script])["code"] == "forward"


def test_trusted_side_needs_no_torch() -> None:
    check = "import sys, trainer.trusted.scorer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-I", "-c", check], check=False).returncode == 0
