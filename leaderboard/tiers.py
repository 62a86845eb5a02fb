"""What reproductions make of a published session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leaderboard.published import Published, Tier
from leaderboard.retrained import Attested
from leaderboard.verdict import Word


def with_reproductions(session: Published, made: Sequence[Attested]) -> Published:
    """`session` with these reproductions by listed people.

    Verdicts on the session's own kind of device come first: there a failure is the claim's, elsewhere it may be the
    device's. Only where there are none, those on other devices decide. One "not reproduced" among the verdicts that
    decide makes the session contested, however many say otherwise. Each is under the session's own version of the
    protocol (leaderboard/retrained.py), and stays what it is when a newer version comes.

    Where the session's bundle is not here its device is unknown: then it is contested only if nobody reproduced it, and
    has no tier.
    """
    decided = [item for item in made if item.retrained.verdict.word is not Word.INCONCLUSIVE]
    own = session.outcome.device if session.outcome else None
    decisive = [item for item in decided if item.retrained.device == own] or decided
    shown = [replace(item.retrained, counts=item in decisive) for item in made]
    failed = [item.retrained.verdict.word is Word.NOT_REPRODUCED for item in decisive]
    contested = any(failed) if session.outcome else bool(failed) and all(failed)
    reproduced = bool(decisive) and not contested and session.outcome is not None
    return replace(
        session,
        retrained=tuple(sorted(shown, key=lambda item: (item.opened_at, item.by))),
        contested=contested,
        tier=Tier.REPRODUCED if reproduced else session.tier,
    )
