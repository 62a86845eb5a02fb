"""Every seed is dealt by the harness: researchers who share a session seed meet the same noise."""

from __future__ import annotations

import hashlib

from harness.records import Role

_PAIR_ORDER = (
    (Role.CONFIRM_BASELINE, Role.CONFIRM_CANDIDATE),
    (Role.CONFIRM_CANDIDATE, Role.CONFIRM_BASELINE),
)


def derive(*parts: object) -> int:
    """A seed in [0, 2**63) from the parts' text: SHA-256, so that neighbours have nothing in common."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def deal(task: str, session_seed: int, role: Role, index: int, nonce: str) -> int:
    """The seed of one run. Both sides of a confirmation pair share theirs, which only the nonce can tell."""
    if role in (Role.CONFIRM_BASELINE, Role.CONFIRM_CANDIDATE):
        return derive("confirm", task, nonce, index)
    return derive(task, session_seed, role, index)


def confirmation_run(place: int) -> tuple[Role, int]:
    """Role and pair of the run at `place` of a confirmation. ABBA: a drift of the device meets both sides alike."""
    pair = place // 2
    return _PAIR_ORDER[pair % 2][place % 2], pair


def commitment(nonce: str) -> str:
    """What the journal says of the nonce before anything has run."""
    return hashlib.sha256(nonce.encode()).hexdigest()
