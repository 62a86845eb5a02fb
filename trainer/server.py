"""Model server: answers windows of tokens with logits. Agent code runs here, so nothing here is trusted.

Run as `python -m trainer.server` in a folder with train.py and model.safetensors. The messages are in
docs/architecture.md. What it prints stays with the session, unseen by a researcher: it has seen evaluation text.
"""

from __future__ import annotations

import ast
import importlib.util
import mmap
import os
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch

import backends
from backends.base import Backend
from trainer import wire
from trainer.task import Task


class _Failed(Exception):
    """Answered with one of the codes `load`, `forward`, `shape`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def compile_nothing() -> None:
    """Compiled code runs as it was written, under the names that its tensors had in training.

    The stock model is served so, and its time is the measure: two fresh servers that compile would exceed it by far.
    TORCH_COMPILE_DISABLE would make FlexAttention and fullgraph=True fail. Not before it is needed: the compiler takes
    seconds to import.
    """
    real = torch.compile

    def compile_eagerly(*arguments: Any, **options: Any) -> Any:
        torch.compiler.set_stance("force_eager")
        return real(*arguments, **options)

    torch.compile = compile_eagerly


def uses_compiler(source: str) -> bool:
    """Whether serving this train.py is likely to need torch's compiler, if only to compile nothing.

    Where `compile` stands outside of functions that only training calls: at the top, on a decorator, in a class or in
    build_model; and wherever FlexAttention is used.
    """
    if "flex_attention" in source:
        return True
    try:
        tree = ast.parse(source)
        for node in tree.body:
            of_training = isinstance(node, ast.FunctionDef) and node.name != "build_model"
            parts = node.decorator_list if of_training and isinstance(node, ast.FunctionDef) else [node]
            if any("compile" in ast.unparse(part) for part in parts):
                return True
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True  # loading it will say what is wrong
    return False


def main() -> int:
    sock = wire.connect()
    setup, fds = wire.receive(sock)
    try:
        _serve(sock, setup, fds)
    except _Failed as failure:
        traceback.print_exc()
        wire.send(sock, {"ok": False, "code": failure.code})
        return 1
    except ConnectionError:  # the scorer has what it wanted
        return 0
    return 0


def _serve(sock: socket.socket, setup: Mapping[str, Any], fds: Sequence[int]) -> None:
    batch, length = setup["batch_shape"]
    vocab = setup["vocab_size"]
    tokens, logits = _map_buffers(fds, batch, length, vocab)
    device = setup["backend"]
    backend = backends.load(device["name"], device["threads"], device["dtype"])
    backend.setup()
    if uses_compiler(Path("train.py").read_text(encoding="utf-8", errors="replace")):
        importlib.import_module("torch._dynamo")  # seconds that are no work of the model's
    wire.send(sock, {"ok": True})  # until here nothing of the agent's has run
    wire.receive(sock)
    model = load_model(Path("train.py"), Path("model.safetensors"), Task.from_message(setup["task"]), backend)
    wire.send(sock, {"ok": True})
    while True:
        wire.receive(sock)
        _answer(model, backend, tokens, logits)
        wire.send(sock, {"ok": True})


def _map_buffers(fds: Sequence[int], batch: int, length: int, vocab: int) -> tuple[np.ndarray[Any, Any], torch.Tensor]:
    tokens_fd, logits_fd = fds
    tokens = mmap.mmap(tokens_fd, batch * length * 8, access=mmap.ACCESS_READ)
    logits = mmap.mmap(logits_fd, batch * length * vocab * 4)
    os.close(tokens_fd)
    os.close(logits_fd)
    return (
        np.frombuffer(tokens, np.int64).reshape(batch, length),
        torch.frombuffer(logits, dtype=torch.float32).view(batch, length, vocab),
    )


def load_model(source: Path, weights: Path, task: Task, backend: Backend) -> torch.nn.Module:
    """Build the model of a train.py and load its weights, every tensor of them (tied ones are stored twice)."""
    try:
        module = _import_source(source)
        model: torch.nn.Module = module.build_model(task)
        model.load_state_dict(safetensors.torch.load_file(weights), strict=True)
        return model.to(backend.device).eval()
    except Exception as error:  # any agent code at all: the scorer gets one word
        raise _Failed("load") from error


def _import_source(source: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("train", source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module  # dataclasses and compiled functions look themselves up there
    spec.loader.exec_module(module)
    return module


def _answer(model: torch.nn.Module, backend: Backend, tokens: np.ndarray[Any, Any], logits: torch.Tensor) -> None:
    try:
        with torch.inference_mode(), backend.autocast():
            answer = model(torch.from_numpy(tokens.copy()).to(backend.device))
        shape = tuple(answer.shape)
    except Exception as error:
        raise _Failed("forward") from error
    if shape != tuple(logits.shape):
        print(f"forward returned {shape}: expected {tuple(logits.shape)}", file=sys.stderr)
        raise _Failed("shape")
    with torch.inference_mode():
        logits.copy_(answer)  # as float32, and waits for the device


if __name__ == "__main__":
    compile_nothing()
    sys.exit(main())
