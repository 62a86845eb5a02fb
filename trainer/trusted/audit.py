"""The causality audit: are the claimed probabilities still there when the future is exchanged?

A cut (window, t) claims nll[window, t] for the target at t, which may depend on input[: t + 1] only. The audit shows
that prefix again, followed by other real text, to a process that was started after the claims were written down. An
honest model says the same as before. One that looked at the target itself, at later tokens, at other rows of the batch
or at earlier batches says something else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.trusted.bulk import Order, require_no_shift
from trainer.trusted.remote import EvaluationFailed, ModelServer
from trainer.trusted.scoring import EvalText, token_nll
from trainer.trusted.stats import mean_bounds, sign_test_p

# A leak below this, averaged over all tokens, is a quarter of a typical device-independent sigma or less.
MAX_LEAK_NATS = 0.001
# Above the rounding of honest models (0.03 measured for an FFT in bf16). A leak that stays below it at each token has
# to be everywhere to pay, and then the mean over uniform cuts shows it.
LARGE_NATS = 0.05
# 10 to 0. Only a model with rounding above LARGE_NATS (a router's flipped choice) can fail by chance, and rarely does:
# rounding takes both signs.
MAX_SIGN_P = 1e-3


@dataclass(frozen=True)
class Cuts:
    """K cuts: the target at `position` [K] of `window` [K]."""

    window: NDArray[np.int64]
    position: NDArray[np.int64]
    targeted: NDArray[np.bool_]


@dataclass(frozen=True)
class Audit:
    """All differences in nats, audited minus claimed."""

    num_uniform: int
    mean_nats: float
    lower_nats: float
    upper_nats: float
    num_targeted: int
    num_large_positive: int
    num_large_negative: int


def draw_cuts(
    claimed: NDArray[np.float32],
    reference: NDArray[np.float32],
    num_cuts: int,
    batch_size: int,
    rng: np.random.Generator,
) -> Cuts:
    """Half uniform over all tokens, half where the claim beats the reference's most.

    The targeted ones are drawn without replacement with a weight of the squared advantage (Efraimidis and Spirakis
    2006, by Gumbel keys). Taking the largest only would leave alone a cheat that adds little to each of many tokens;
    taking it in proportion would seldom hit a rare one. Batches are filled up with uniform cuts.

    What this misses was simulated: docs/threat-model.md.

    Args:
        claimed, reference: [num_windows, T] nats.
    """
    num_targeted = min(num_cuts // 2, claimed.size)
    num_uniform = -(-num_cuts // batch_size) * batch_size - num_targeted
    uniform = rng.choice(claimed.size, num_uniform, replace=num_uniform > claimed.size)
    advantage = np.maximum((reference - claimed).ravel().astype(np.float64), 1e-6)
    keys = 2 * np.log(advantage) + rng.gumbel(size=claimed.size)
    targeted = np.argpartition(keys, claimed.size - num_targeted)[claimed.size - num_targeted :]
    window, position = np.divmod(np.concatenate([uniform, targeted]), claimed.shape[1])
    return Cuts(window, position, np.arange(num_uniform + num_targeted) >= num_uniform)


def arrange(cuts: Cuts, batch_size: int, bulk_batch: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Which cut is asked where: indices of cuts, [num_batches, B].

    The first batch holds the windows that the bulk asked last: a model that learns from what it is asked knows least
    now where it knew most. Cuts of one window go to different batches as far as possible, so that no row shows another
    row's future.

    Args:
        bulk_batch: [num_windows], the batch of the bulk phase that scored each window.
    """
    num_batches = len(cuts.window) // batch_size
    shuffled = rng.permutation(len(cuts.window))
    latest = shuffled[np.argsort(-bulk_batch[cuts.window[shuffled]], kind="stable")]
    first_of_window = np.zeros(len(latest), bool)
    first_of_window[np.unique(cuts.window[latest], return_index=True)[1]] = True
    first = np.concatenate([latest[first_of_window], latest[~first_of_window]])
    first, rest = first[:batch_size], first[batch_size:]
    rank = rng.permutation(len(bulk_batch))
    rest = rest[np.argsort(rank[cuts.window[rest]], kind="stable")]
    # Dealing in turn puts neighbours, and so the cuts of one window, into different batches.
    batches = np.vstack([first[None], rest.reshape(batch_size, num_batches - 1).T])
    return rng.permuted(batches, axis=1)


def cut_inputs(
    inputs: NDArray[np.int64], position: NDArray[np.int64], decoy: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Inputs [B, T] with everything after `position` [B] replaced by a random stretch of the decoy text.

    Raises:
        ValueError: the decoy text is shorter than a window.
    """
    length = inputs.shape[1]
    if len(decoy) < length:
        raise ValueError(f"decoy text of {len(decoy)} tokens: expected at least {length}; prepare the data again")
    cut = inputs.copy()
    for row, keep in zip(cut, position + 1, strict=True):
        start = rng.integers(len(decoy) - (length - keep) + 1)
        row[keep:] = decoy[start : start + length - keep]
    return cut


def run_audit(
    server: ModelServer,
    text: EvalText,
    claimed: NDArray[np.float32],
    *,
    cuts: Cuts,
    batches: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ask every cut.

    Returns:
        D [K] in nats, audited minus claimed at each cut; and, for each row of the first batch with any tokens before
        its cut, their total difference over the rows' mean length: what a fresh process says of what was asked last.

    Raises:
        EvaluationFailed: `non_finite`, or what the server reports.
    """
    differences = np.empty(len(cuts.window))
    sums: list[float] = []
    lengths: list[int] = []
    for number, batch in enumerate(batches):
        window, position = cuts.window[batch], cuts.position[batch]
        server.forward(cut_inputs(text.inputs[window], position, text.decoy, rng))
        for row, (cut, w, t) in enumerate(zip(batch, window, position, strict=True)):
            start = 0 if number == 0 else t
            nll = token_nll(server.read(row, int(start), int(t) + 1), text.windows[w, start : t + 1])
            if not np.isfinite(nll).all():
                raise EvaluationFailed("non_finite", "forward returned NaN or infinite logits")
            change = nll.astype(np.float64) - claimed[w, start : t + 1]
            differences[cut] = change[-1]
            if len(change) > 1:
                sums.append(float(change[:-1].sum()))
                lengths.append(len(change) - 1)
    # Not the rows' own means: a row of two tokens would count as much as one of two hundred.
    return differences, np.array(sums) / max(1.0, float(np.mean(lengths or [1])))


def summarise(differences: NDArray[np.float64], targeted: NDArray[np.bool_]) -> Audit:
    """The published figures of D [K]."""
    mean, lower, upper = mean_bounds(differences[~targeted])
    aimed = differences[targeted]
    return Audit(
        num_uniform=int((~targeted).sum()),
        mean_nats=mean,
        lower_nats=lower,
        upper_nats=upper,
        num_targeted=len(aimed),
        num_large_positive=int((aimed > LARGE_NATS).sum()),
        num_large_negative=int((aimed < -LARGE_NATS).sum()),
    )


def verdict(audit: Audit) -> tuple[str, str] | None:
    """Code and reason if the claims cannot be trusted."""
    if audit.lower_nats > MAX_LEAK_NATS:
        return "leak_uniform", (
            f"predictions depend on later tokens or other windows: without them tokens cost {audit.mean_nats:.4f} nats "
            f"more (surely above {audit.lower_nats:.4f}, allowed {MAX_LEAK_NATS})"
        )
    if sign_test_p(audit.num_large_positive, audit.num_large_negative) < MAX_SIGN_P:
        return "leak_targeted", (
            f"some predictions depend on later tokens or other windows: without them {audit.num_large_positive} of "
            f"{audit.num_targeted} unusually good ones got worse, {audit.num_large_negative} better"
        )
    return None


def audit_claims(
    server: ModelServer,
    text: EvalText,
    claimed: NDArray[np.float32],
    *,
    reference: NDArray[np.float32],
    order: Order,
    num_cuts: int,
    rng: np.random.Generator,
) -> tuple[Audit, tuple[str, str] | None]:
    """The whole audit, in a server that was started after the claims were made.

    Raises:
        EvaluationFailed: `non_finite`, `nondeterministic` (a state between calls), or what the server reports.
    """
    batch_size = order.windows.shape[1]
    cuts = draw_cuts(claimed, reference, num_cuts, batch_size, rng)
    batches = arrange(cuts, batch_size, order.batch_of(), rng)
    differences, shifts = run_audit(server, text, claimed, cuts=cuts, batches=batches, rng=rng)
    audit = summarise(differences, cuts.targeted)
    found = verdict(audit)
    if found is None and len(shifts) > 1:
        require_no_shift(shifts)
    return audit, found
