"""Whole evaluations with models in this process: honest ones get their number, the others gain nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scorer_cases import (
    BOS,
    LENGTH,
    NUM_WINDOWS,
    TASK,
    VOCAB,
    Bigram,
    LongConvolution,
    Mixture,
    Model,
    Scan,
    ServersInProcess,
    request,
    score,
    transitions,
    with_bonus,
    write_data,
)

from trainer.task import Task
from trainer.trusted.scorer import evaluate
from trainer.trusted.scoring import bits_per_byte, model_inputs, token_nll


def draws(few: int, all_of_them: int) -> list[object]:
    """Seeds of the audit: the default run tries a few of them."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(few, all_of_them))]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_data(tmp_path_factory.mktemp("data"))


def bpb_in_float64(folder: Path, split: str, log_probs: np.ndarray) -> float:
    """Token by token, of a model that gives `log_probs[last token]`."""
    windows = np.load(folder / f"{split}.npy")
    sizes = np.load(folder / "token_bytes.npy")
    nats = num_bytes = 0.0
    for window in windows:
        last = BOS
        for token in window:
            nats -= log_probs[last, token]
            num_bytes += sizes[token]
            last = token
    return nats / math.log(2) / num_bytes


@pytest.mark.parametrize("split", ["val", "test"])
def test_equals_a_straightforward_computation(data: Path, split: str) -> None:
    result = score(data, Bigram, split=split)
    assert result.status == "ok"
    assert result.bpb == pytest.approx(bpb_in_float64(data, split, np.log(transitions())), abs=1e-6)
    assert result.num_tokens == NUM_WINDOWS * LENGTH


def test_honest_model_is_audited_without_any_difference(data: Path) -> None:
    audit = score(data, Bigram, entropy=None).audit
    assert audit is not None
    assert (audit.mean_nats, audit.lower_nats, audit.upper_nats) == (0, 0, 0)
    assert audit.num_large_positive == audit.num_large_negative == 0
    assert audit.num_uniform == audit.num_targeted == 128


@pytest.mark.parametrize("seed", draws(2, 6))
@pytest.mark.parametrize("build", [Mixture, LongConvolution, Scan])
def test_honest_exotic_models_pass(data: Path, build: Callable[[int], torch.nn.Module], seed: int) -> None:
    result = score(data, lambda: build(seed).eval(), entropy=seed)
    assert (result.status, result.code) == ("ok", None)


def test_the_convolution_does_differ(data: Path) -> None:
    """Otherwise the test above would show nothing."""
    audit = score(data, lambda: LongConvolution(0).eval()).audit
    assert audit is not None
    assert audit.mean_nats != 0


def test_the_audit_starts_after_the_bulk_is_gone(data: Path) -> None:
    servers = ServersInProcess(Bigram)
    evaluate(request(data), servers)
    assert servers.events == ["bulk", "stop", "audit", "stop"]


def everywhere(bonus: float) -> Model:
    return lambda tokens: with_bonus(tokens, torch.ones(tokens[:, 1:].shape), bonus)


def on_rare_tokens(bonus: float) -> Model:
    rare = torch.from_numpy(np.sort(transitions().mean(0)))[3]
    is_rare = torch.from_numpy(transitions().mean(0)) < rare
    return lambda tokens: with_bonus(tokens, is_rare[tokens[:, 1:]].float(), bonus)


def at_one_in_a_thousand(bonus: float) -> Model:
    def forward(tokens: torch.Tensor) -> torch.Tensor:
        chosen = tokens[:, 1:] * 7919 + tokens[:, :-1] * 104729 + torch.arange(1, LENGTH) * 31
        return with_bonus(tokens, (chosen % 1000 < 1).float(), bonus)

    return forward


def far_ahead(tokens: torch.Tensor) -> torch.Tensor:
    """Averages what comes later, as bidirectional attention would: no look at the very next token alone."""
    later = torch.nn.functional.one_hot(tokens, VOCAB).float().flip(1).cumsum(1).flip(1)
    logits = Bigram()(tokens).detach().clone()
    logits[:, :-1] += (later[:, 1:] + 0.3).log()
    return logits


def of_other_rows(tokens: torch.Tensor) -> torch.Tensor:
    """The table is not learnt but counted in the batch, whose inputs hold nearly all targets."""
    counts = torch.full((VOCAB, VOCAB), 1e-2)
    counts.index_put_((tokens[:, :-1].flatten(), tokens[:, 1:].flatten()), torch.tensor(1.0), accumulate=True)
    return counts.log()[tokens]


@pytest.mark.parametrize("seed", draws(1, 3))
@pytest.mark.parametrize(
    ("model", "code"),
    [
        (everywhere(20.0), "leak_uniform"),
        (everywhere(0.015), "leak_uniform"),  # about 0.01 nats a token
        (on_rare_tokens(12.0), "leak_targeted"),
        (far_ahead, "leak_uniform"),
    ],
)
def test_looking_ahead_is_rejected(data: Path, model: Model, code: str, seed: int) -> None:
    result = score(data, lambda: model, entropy=seed)
    assert result.status == "invalid"
    assert result.bpb is None
    assert result.reason
    assert result.code in (code, "leak_uniform")


@pytest.mark.parametrize("seed", draws(1, 3))
def test_looking_at_other_rows_is_rejected(data: Path, seed: int) -> None:
    """By the audit, or because a window that is asked twice meets other neighbours."""
    result = score(data, lambda: of_other_rows, entropy=seed)
    assert (result.status, result.code) in (("invalid", "leak_uniform"), ("crash", "nondeterministic"))
    assert result.bpb is None and result.reason


class Stock(torch.nn.Module):
    """Worse than the best: what the researcher starts from."""

    def __init__(self) -> None:
        super().__init__()
        noise = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))
        self.table = Bigram().table.detach() + 0.5 * noise

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table[tokens]


def test_a_reference_sharpens_the_audit(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "reference.npy"
    stock = score(data, Stock, save_nll=str(path))
    saved = np.load(path)
    assert saved.shape == (NUM_WINDOWS, LENGTH)
    assert saved.sum(dtype=np.float64) == stock.nll_nats
    honest = score(data, Bigram, reference_nll=str(path))
    assert honest.status == "ok"

    def leaky(tokens: torch.Tensor) -> torch.Tensor:
        return with_bonus(tokens, (tokens[:, 1:] * 7 + tokens[:, :-1] * 3) % 100 == 0, 8.0)

    found = [score(data, lambda: leaky, entropy=seed, reference_nll=str(path)).code for seed in range(3)]
    assert found == ["leak_targeted"] * 3


def test_a_leak_at_one_token_in_a_thousand_is_rejected_or_gains_nothing(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "reference.npy"
    score(data, Stock, save_nll=str(path))
    honest = score(data, Bigram, reference_nll=str(path)).bpb
    leaking = score(data, lambda: at_one_in_a_thousand(12.0), reference_nll=str(path))
    # Three tokens of three thousand: too few to be sure of, and worth less than the spread between seeds.
    assert honest is not None
    assert leaking.bpb is None or honest - leaking.bpb < 0.005


class Learner:
    """Counts transitions in what it is asked, on top of a poor start: honest within a batch, not between them."""

    def __init__(self) -> None:
        self.counts = torch.full((VOCAB, VOCAB), 0.5)

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.counts.log()[tokens]
        pairs = (tokens[:, :-1].flatten(), tokens[:, 1:].flatten())
        self.counts.index_put_(pairs, torch.tensor(1.0), accumulate=True)
        return logits


class RememberingLearner(Learner):
    """Answers as before where it was asked before, so that repeated windows do not give it away."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[tuple[int, ...], torch.Tensor] = {}

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = super().__call__(tokens)
        for row, answer in zip(tokens.tolist(), logits, strict=True):
            for t in range(len(row)):
                answer[t] = self.memory.setdefault(tuple(row[: t + 1]), answer[t].clone())
        return logits


@pytest.mark.parametrize("build", [Learner, RememberingLearner])
@pytest.mark.parametrize("seed", draws(3, 12))
def test_learning_from_the_windows_is_rejected(data: Path, build: Callable[[], Model], seed: int) -> None:
    result = score(data, build, entropy=seed)
    assert result.status != "ok"
    assert result.bpb is None


@pytest.mark.parametrize("dropout", [0.05, 0.5])
def test_randomised_answers_are_a_crash(data: Path, dropout: float) -> None:
    result = score(data, lambda: Scan(0, dropout).train())
    assert (result.status, result.code) == ("crash", "nondeterministic")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_a_number_is_a_crash(data: Path, value: float) -> None:
    def forward(tokens: torch.Tensor) -> torch.Tensor:
        logits = Bigram()(tokens).clone()
        logits[3, 5, 7] = value
        return logits

    result = score(data, lambda: forward)
    assert (result.status, result.code, result.bpb) == ("crash", "non_finite", None)


def test_no_probability_for_what_came_is_a_crash(data: Path) -> None:
    def forward(tokens: torch.Tensor) -> torch.Tensor:
        return torch.full((*tokens.shape, VOCAB), -math.inf).index_fill(2, torch.tensor(5), 0)

    result = score(data, lambda: forward)
    assert result.code == "non_finite"


@pytest.mark.parametrize("shift", [7.0, -100.0, 1e4, 2.0**30])
def test_scores_that_are_not_normalised_gain_nothing(data: Path, shift: float) -> None:
    honest = score(data, Bigram).bpb
    shifted = score(data, lambda: lambda tokens: Bigram()(tokens) + shift).bpb
    assert honest is not None
    assert shifted is not None
    assert shifted > honest - 1e-5  # the model's own rounding


@given(st.integers(2, 40), st.integers(1, 30), st.floats(0.01, 1e3), st.integers(0, 99))
def test_nll_equals_float64(vocab: int, num_tokens: int, scale: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((num_tokens, vocab)) * scale).astype(np.float32)
    targets = random.integers(0, vocab, num_tokens)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(targets), reduction="none"
    ).numpy()
    nll = token_nll(logits.copy(), targets)
    assert nll == pytest.approx(expected, rel=1e-6, abs=2e-6)
    assert (nll >= 0).all()


def test_large_equal_scores_are_no_certainty() -> None:
    nll = token_nll(np.full((3, 1000), 1e30, np.float32), np.zeros(3, np.int64))
    assert nll == pytest.approx(math.log(1000), rel=1e-6)


def test_inputs_are_shifted_by_bos() -> None:
    assert model_inputs(np.array([[1, 2, 3], [4, 5, 6]]), 9).tolist() == [[9, 1, 2], [9, 4, 5]]


def test_text_without_bytes_has_no_score() -> None:
    assert bits_per_byte(math.log(2) * 6, 3) == pytest.approx(2)
    with pytest.raises(ValueError, match="0 bytes"):
        bits_per_byte(1.0, 0)


def test_unfit_data_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of val, test"):
        request(data, split="train")
    with pytest.raises(ValueError, match="prepare the data again"):
        score(data, Bigram, task=TASK | {"vocab_size": 32, "bos_token": 31, "audit_cuts": 16})
    np.save(tmp_path / "reference.npy", np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        score(data, Bigram, reference_nll=str(tmp_path / "reference.npy"))
    with pytest.raises(ValueError, match="without vocab_size"):
        Task.from_message({key: value for key, value in TASK.items() if key != "vocab_size"})


def test_servers_learn_nothing_but_the_task(data: Path) -> None:
    setup = replace(request(data), max_eval_seconds=3).setup()
    assert set(setup) == {"task", "backend", "batch_shape", "vocab_size"}
    assert setup["task"] == TASK


@pytest.mark.parametrize(
    ("backend", "first_answers", "worked"),
    [
        ("cpu", (0.2, 0.3), 0.3),
        ("cpu", (9.0, 0.3), 9.0),  # it may know which server it is in
        ("cuda", (0.2, 9.0), 4.5),  # by the wall something else may have delayed one of them
        ("cuda", (0.3, 0.2), 0.2),
        ("cpu", (None, None), None),
    ],
)
def test_what_a_model_works_before_it_answers_is_limited(
    data: Path, backend: str, first_answers: tuple[float | None, ...], worked: float | None
) -> None:
    asked = request(data, backend={"name": backend, "threads": 1, "dtype": "float32"}, max_first_answer_seconds=1.0)
    result = evaluate(asked, ServersInProcess(Bigram, first_answers))
    if worked is not None and worked > 1.0:
        assert (result.status, result.code, result.bpb) == ("crash", "slow_start", None)
        assert f"{worked:.1f}" not in (result.reason or "")
    else:
        assert (result.status, result.first_answer_seconds) == ("ok", worked)
