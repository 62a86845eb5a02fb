"""Text with a known source, models of it honest and otherwise, and model servers that live in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainer.trusted.remote import EvaluationFailed
from trainer.trusted.scorer import Request, Result, evaluate

VOCAB, LENGTH, NUM_WINDOWS, BATCH, NUM_CUTS = 64, 32, 96, 16, 256
BOS = VOCAB - 1
TASK = {
    "name": "case",
    "vocab_size": VOCAB,
    "sequence_length": LENGTH,
    "reference_tokens": 1,
    "bos_token": BOS,
    "eval_batch_size": BATCH,
    "compile": False,
}

Model = Callable[[torch.Tensor], torch.Tensor]


def transitions() -> np.ndarray:
    """[VOCAB, VOCAB] of a Markov chain whose rows put most of their mass on few tokens."""
    logits = np.random.default_rng(0).standard_normal((VOCAB, VOCAB)) * 2
    exp = np.exp(logits)
    return exp / exp.sum(1, keepdims=True)


def markov_text(num_tokens: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cumulative = transitions().cumsum(1)
    tokens = np.empty(num_tokens, np.uint16)
    last = BOS
    for i, u in enumerate(rng.random(num_tokens)):
        last = min(int(np.searchsorted(cumulative[last], u)), VOCAB - 1)
        tokens[i] = last
    return tokens


def write_data(folder: Path) -> Path:
    np.save(folder / "val.npy", markov_text(NUM_WINDOWS * LENGTH, 1).reshape(NUM_WINDOWS, LENGTH))
    np.save(folder / "test.npy", markov_text(NUM_WINDOWS * LENGTH, 2).reshape(NUM_WINDOWS, LENGTH))
    np.save(folder / "decoy.npy", markov_text(2048, 3))
    token_bytes = np.random.default_rng(4).integers(1, 6, VOCAB).astype(np.int32)
    token_bytes[BOS] = 0
    np.save(folder / "token_bytes.npy", token_bytes)
    return folder


class ServerInProcess:
    vocab_size = VOCAB

    def __init__(self, model: Model, first_answer_seconds: float | None = None) -> None:
        self.model = model
        self.first_answer_seconds = first_answer_seconds
        self.logits = np.empty(0, np.float32)

    def forward(self, tokens: np.ndarray) -> None:
        with torch.no_grad():
            self.logits = self.model(torch.from_numpy(tokens)).float().numpy()
        if self.logits.shape != (*tokens.shape, VOCAB):
            raise EvaluationFailed("shape")

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        return self.logits[row, start:stop].copy()


class ServersInProcess:
    """Fresh models, as fresh processes would be."""

    def __init__(self, build: Callable[[], Model], first_answers: Sequence[float | None] = (None, None)) -> None:
        self.build = build
        self.first_answers = list(first_answers)  # of one server after the other
        self.events: list[str] = []

    def start(self, phase: str) -> ServerInProcess:
        self.events.append(phase)
        return ServerInProcess(self.build(), self.first_answers.pop(0))

    def stop(self) -> None:
        self.events.append("stop")


def request(folder: Path, entropy: int | None = 0, **changes: Any) -> Request:
    message: Mapping[str, Any] = {
        "data_dir": str(folder),
        "split": "val",
        "task": TASK | {"audit_cuts": NUM_CUTS},
        "backend": {"name": "null", "threads": 1, "dtype": "float32"},
        "max_eval_seconds": None,
        "entropy": entropy,
    }
    return Request.from_message({**message, **changes})


def score(folder: Path, build: Callable[[], Model], entropy: int | None = 0, **changes: Any) -> Result:
    return evaluate(request(folder, entropy, **changes), ServersInProcess(build))


class Bigram(nn.Module):
    """The best that can be done without a look ahead: the chain's own probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(np.log(transitions())).float())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table[tokens]


def with_bonus(tokens: torch.Tensor, where: torch.Tensor, bonus: float) -> torch.Tensor:
    """The honest logits, plus `bonus` on the true next token at the places [B, T - 1] given."""
    logits = Bigram().eval()(tokens).detach().clone()
    true_next = torch.nn.functional.one_hot(tokens[:, 1:], VOCAB).float()
    logits[:, :-1] += bonus * true_next * where[..., None]
    return logits


class Mixture(nn.Module):
    """Dropless mixture of experts in bf16: tokens are grouped over the whole batch, so products change their shape."""

    def __init__(self, seed: int, width: int = 64, num_experts: int = 4) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, width)
        self.router = nn.Linear(width, num_experts)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(num_experts))
        self.head = nn.Linear(width, VOCAB)
        nn.init.normal_(self.head.weight, std=0.2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = self.embed(tokens).flatten(0, 1)
            choice = self.router(x).argmax(-1)
            out = torch.zeros_like(x)
            for i, expert in enumerate(self.experts):
                out[choice == i] = expert(x[choice == i]).float()
            return self.head((x + out).relu()).unflatten(0, tokens.shape)


class LongConvolution(nn.Module):
    """Causal FFT convolution in bf16. The transform is rounded, so every output feels the whole window a little."""

    def __init__(self, seed: int, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, width)
        self.filter = nn.Parameter(torch.randn(LENGTH, width) * torch.exp(-torch.arange(LENGTH) / 8)[:, None])
        self.head = nn.Linear(width, VOCAB)
        nn.init.normal_(self.head.weight, std=0.1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        spectrum = torch.fft.rfft(x, 2 * LENGTH, dim=1) * torch.fft.rfft(self.filter, 2 * LENGTH, dim=0)
        rounded = torch.complex(spectrum.real.bfloat16().float(), spectrum.imag.bfloat16().float())
        y = torch.fft.irfft(rounded, 2 * LENGTH, dim=1)[:, : tokens.shape[1]]
        return self.head(y.bfloat16().float())


class Scan(nn.Module):
    """A gated linear recurrence, with dropout that eval() has to silence."""

    def __init__(self, seed: int, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, 32)
        self.gate = nn.Linear(32, 32)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(32, VOCAB)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.dropout(self.embed(tokens))
        gate = self.gate(x).sigmoid()
        state = torch.zeros_like(x[:, 0])
        states = []
        for t in range(tokens.shape[1]):
            state = gate[:, t] * state + (1 - gate[:, t]) * x[:, t]
            states.append(state)
        return self.head(torch.stack(states, 1))
