"""The causality audit: are the claimed probabilities still there when the future is exchanged?

A cut (window, t) claims nll[window, t] for the target at t, which may depend on input[: t + 1] only. The audit shows
that prefix again, followed by other real text, to a process that was started after the claims were written down. An
honest model says the same as before. One that looked at the target itself, at later tokens, at other rows of the batch
or at earlier batches says something else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.trusted.bulk import Order, check_repeats, score_row
from trainer.trusted.remote import EvaluationFailed, ModelServer
from trainer.trusted.scoring import EvalText, token_nll
from trainer.trusted.stats import mean_bounds, sign_test_p

# A leak below this, averaged over all tokens, is a quarter of a typical device-independent sigma or less.
MAX_LEAK_NATS = 0.001
# Above the rounding of honest models (0.03 measured for an FFT in bf16). A leak that stays below it at each token has
# to be everywhere to pay, and then the mean over uniform cuts shows it.
LARGE_NATS = 0.05
MAX_SIGN_P = 1e-3  # 10 to 0
# How many differences of all may be large, whatever their signs. A model that tells the audit from the bulk phase (by
# prefixes that come again) could else claim what it cannot repeat and hide that in noise: a few huge differences widen
# every bound, and equal numbers of both signs pass every test of signs.
MAX_LARGE_SHARE, MIN_LARGE_ALLOWED = 0.005, 3


@dataclass(frozen=True)
class Cuts:
    """K cuts: the target at `position` [K] of `window` [K]."""

    window: NDArray[np.int64]
    position: NDArray[np.int64]
    targeted: NDArray[np.bool_]


@dataclass(frozen=True)
class Audit:
    """All differences in nats, audited minus claimed. Mean and bounds are of uniform cuts, none beyond LARGE_NATS."""

    num_uniform: int
    mean_nats: float
    lower_nats: float
    upper_nats: float
    num_large_uniform: int
    num_targeted: int
    num_large_positive: int
    num_large_negative: int


def draw_opening(order: Order, rng: np.random.Generator) -> NDArray[np.int64]:
    """The windows [B] that a fresh process is asked first, whole and as in the bulk phase: there it knows nothing yet.

    They are spread over the bulk phase with a preference for its end: a model that learns from what it is asked knew
    most there. Not the latest only, for it could stop to learn in time. At most an eighth of all, since they cannot be
    cut any more; where that does not fill the batch, some are asked twice.
    """
    batch = order.batch_of()
    weight = batch + 1.0
    number = min(order.windows.shape[1], -(-len(batch) // 8))
    drawn = rng.choice(len(batch), number, replace=False, p=weight / weight.sum())
    return np.resize(drawn, order.windows.shape[1])


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
    num_batches = (num_uniform + num_targeted) // batch_size
    room = num_batches - np.bincount(uniform // claimed.shape[1], minlength=len(claimed))
    targeted = _best_with_room(keys.reshape(claimed.shape), room, num_targeted)
    window, position = np.divmod(np.concatenate([uniform, targeted]), claimed.shape[1])
    return Cuts(window, position, np.arange(num_uniform + num_targeted) >= num_uniform)


def _best_with_room(keys: NDArray[np.float64], room: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Flat indices of the `number` largest keys [num_windows, T], at most `room` [num_windows] of each window.

    A window has room for as many cuts as there are batches to ask them in; where that is too little for `number`, as
    with very few windows, more are taken.
    """
    rank = np.empty(keys.shape, np.int64)
    np.put_along_axis(rank, np.argsort(-keys, axis=1), np.arange(keys.shape[1])[None], 1)
    crowded = (rank >= room[:, None]).ravel()
    return np.lexsort((-keys.ravel(), crowded))[:number]


def arrange(cuts: Cuts, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which cut is asked where: indices of cuts, [num_batches, B].

    The cuts of one window go to different batches as far as possible, and later ones lie further back in the window:
    a row shows its window's text up to its cut, so another order would show a model that remembers what it was asked
    the targets of cuts that are still to come.
    """
    num_batches = len(cuts.window) // batch_size
    # By window, in a random order of windows; within a window from its beginning on.
    by_window = np.lexsort((cuts.position, rng.permutation(cuts.window.max() + 1)[cuts.window]))
    # Dealing in turn puts neighbours, and so the cuts of one window, into different batches.
    batch = np.arange(len(by_window)) % num_batches
    run = np.cumsum(np.diff(cuts.window[by_window], prepend=-1) != 0)
    batch = batch[np.lexsort((batch, run))]
    dealt = by_window[np.argsort(batch, kind="stable")].reshape(num_batches, batch_size)
    return rng.permuted(dealt, axis=1)


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


def ask_opening(
    server: ModelServer, text: EvalText, claimed: NDArray[np.float32], opening: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Differences [R, T] in nats, asked now minus claimed, of the windows in `opening` [B], each once.

    Raises:
        EvaluationFailed: `non_finite`, or what the server reports.
    """
    server.forward(text.inputs[opening])
    answers = np.stack([score_row(server, row, text.windows[window]) for row, window in enumerate(opening)])
    _, rows = np.unique(opening, return_index=True)
    differences: NDArray[np.float32] = _finite(answers)[rows] - claimed[opening[rows]]
    return differences


def ask_cuts(
    server: ModelServer,
    text: EvalText,
    claimed: NDArray[np.float32],
    *,
    cuts: Cuts,
    batches: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """D [K] in nats, audited minus claimed at each cut.

    Raises:
        EvaluationFailed: `non_finite`, or what the server reports.
    """
    differences = np.empty(len(cuts.window))
    for batch in batches:
        window, position = cuts.window[batch], cuts.position[batch]
        server.forward(cut_inputs(text.inputs[window], position, text.decoy, rng))
        for row, (cut, w, t) in enumerate(zip(batch, window, position, strict=True)):
            nll = _finite(token_nll(server.read(row, int(t), int(t) + 1), text.windows[w, t : t + 1]))
            differences[cut] = float(nll[0]) - float(claimed[w, t])
    return differences


def _finite(nll: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(nll).all():
        raise EvaluationFailed("non_finite", "forward returned NaN or infinite logits")
    return nll


def summarise(differences: NDArray[np.float64], targeted: NDArray[np.bool_]) -> Audit:
    """The published figures of D [K]."""
    uniform, aimed = differences[~targeted], differences[targeted]
    # As they are, one huge difference would be wider than every mean.
    mean, lower, upper = mean_bounds(np.clip(uniform, -LARGE_NATS, LARGE_NATS))
    return Audit(
        num_uniform=len(uniform),
        mean_nats=mean,
        lower_nats=lower,
        upper_nats=upper,
        num_large_uniform=int((np.abs(uniform) > LARGE_NATS).sum()),
        num_targeted=len(aimed),
        num_large_positive=int((aimed > LARGE_NATS).sum()),
        num_large_negative=int((aimed < -LARGE_NATS).sum()),
    )


def verdict(audit: Audit) -> tuple[str, str] | None:
    """Code and reason if the claims cannot be trusted.

    Without figures, which the record has: a researcher reads the reason, and a model that has seen what it is asked
    could say something by them.
    """
    if audit.lower_nats > MAX_LEAK_NATS:
        return "leak_uniform", (
            "predictions depend on later tokens or other windows: without them a token costs over "
            f"{MAX_LEAK_NATS} nats more"
        )
    if sign_test_p(audit.num_large_positive, audit.num_large_negative) < MAX_SIGN_P:
        return "leak_targeted", (
            "some predictions depend on later tokens or other windows: without them unusually good ones got worse far "
            "more often than better"
        )
    return None


def unsteady(audit: Audit) -> str | None:
    """Why the model does not stand by its answers, in whatever direction they moved."""
    num_large = audit.num_large_uniform + audit.num_large_positive + audit.num_large_negative
    num_cuts = audit.num_uniform + audit.num_targeted
    if num_large > max(MIN_LARGE_ALLOWED, int(MAX_LARGE_SHARE * num_cuts)):
        return f"when asked again, too many answers of forward lay more than {LARGE_NATS} nats apart"
    # Nobody honest does better when asked again: such a model remembers what the audit asked before.
    if audit.upper_nats < -MAX_LEAK_NATS:
        return "forward knew more when asked again"
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
    opening = draw_opening(order, rng)
    # What the opening shows cannot be cut any more.
    left = np.setdiff1d(np.arange(len(claimed)), opening)
    left = left if len(left) else opening[:1]
    cuts = draw_cuts(claimed[left], reference[left], num_cuts, batch_size, rng)
    cuts = replace(cuts, window=left[cuts.window])
    batches = arrange(cuts, batch_size, rng)

    check_repeats(ask_opening(server, text, claimed, opening))
    audit = summarise(ask_cuts(server, text, claimed, cuts=cuts, batches=batches, rng=rng), cuts.targeted)
    found = verdict(audit)
    if found is None and (why := unsteady(audit)):
        raise EvaluationFailed("nondeterministic", f"{why}: keep no state between calls, and look at no other rows")
    return audit, found
