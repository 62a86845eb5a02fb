"""Published rows as what shows them wants them: entries, bundles, reproductions, and the boards they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leaderboard.aggregate import Board, Row
from leaderboard.bundle import Bundle
from leaderboard.lines import incomplete
from leaderboard.outcome import Outcome
from leaderboard.overclaim import overclaims
from leaderboard.paths import ENTRIES, REPRODUCERS
from leaderboard.verdict import Verdict

if TYPE_CHECKING:
    from leaderboard.official import Official


class Tier(StrEnum):
    """How much stands behind a row, the weakest first."""

    SELF_REPORTED = "self-reported"  # the bundle was not looked at
    CONSISTENT = "consistent"  # every number follows from the records
    REPRODUCED = "reproduced"  # a listed reproducer retrained winner and baseline

    @property
    def strength(self) -> int:
        return list(Tier).index(self)


class Category(StrEnum):
    """Who researched."""

    CONTROL = "control"  # random, tpe, cmaes, noop
    LLM = "llm"  # the standard scaffold
    EXTERNAL = "external"  # brings a scaffold of its own


@dataclass(frozen=True)
class Retrained:
    """One reproduction of a published session."""

    by: str  # on leaderboard/reproducers.txt
    device_label: str
    device: str  # fingerprint
    opened_at: float  # seconds since 1970
    verdict: Verdict
    counts: bool = True  # whether it decides the tier of the session: leaderboard/tiers.py


@dataclass(frozen=True)
class Published:
    """One published session. `bundle` and `outcome` are None where only hash and URL are here."""

    name: str  # file name of the entry, without .json
    bundle_sha256: str
    bundle_bytes: int
    url: str | None  # https; None: the bundle lies beside the entry
    submitted_by: str
    link: str | None  # https, of who submitted it
    submitted_on: str  # YYYY-MM-DD
    note: str
    bundle: Bundle | None
    outcome: Outcome | None
    category: Category | None
    device_class: str | None  # the kind of device, as a filter wants it: "cpu", "cuda", "rocm", "mps"
    tier: Tier
    contested: bool  # a listed reproducer found: not reproduced
    retrained: tuple[Retrained, ...]
    account: str | None = None  # that proposed the entry


@dataclass(frozen=True)
class Collection:
    """All that is published. `boards` hold the sessions with a bundle; `sessions` is sorted by name."""

    folder: Path
    sessions: tuple[Published, ...]
    boards: tuple[Board, ...]
    withdrawn: Mapping[str, str] = field(default_factory=dict)  # names of entries that were taken back: the reason

    def of(self, outcome: Outcome) -> Published:
        """The published session behind a board's outcome. Raises KeyError where it is not published."""
        return self.by_head[outcome.head]

    @cached_property
    def by_head(self) -> Mapping[str, Published]:
        """The sessions with a bundle by the head of their journal."""
        return {session.outcome.head: session for session in self.sessions if session.outcome is not None}

    @cached_property
    def incomplete(self) -> Mapping[str, tuple[Published, ...]]:
        """By head: published sessions that may be of the same line, and whose bundle is not here."""
        return incomplete(self.sessions)

    def missing(self, row: Row) -> tuple[Published, ...]:
        """The sessions that may be of the row and whose bundle is not here. With any, the row has no group."""
        found = (item for head in sorted(heads(row)) for item in self.incomplete.get(head, ()))
        return tuple({item.name: item for item in found}.values())

    def tier(self, row: Row) -> Tier:
        """Of a row: the weakest of the sessions that count."""
        tiers = (self.of(session).tier for session in row.sessions)
        return min(tiers, key=lambda tier: tier.strength, default=Tier.SELF_REPORTED)

    def contested(self, row: Row) -> bool:
        """Whether a session of the row does not reproduce, or all of them overclaim. Such a row has no group.

        Also a session that does not count, or whose bundle is not here: neither is a place to put a failure.
        """
        found = [self.by_head[head] for head in heads(row) if head in self.by_head]
        return any(item.contested for item in (*found, *self.missing(row))) or self.overclaims(row)

    def overclaims(self, row: Row) -> bool:
        """Whether the researcher's sessions together claim more than was found, those beyond this `row` included."""
        return not self._overclaiming.isdisjoint(heads(row))

    @cached_property
    def _overclaiming(self) -> frozenset[str]:
        """The heads of rows whose sessions together claim more than was found."""
        rows = (heads(row) for board in self.boards for row in board.rows)
        return frozenset(
            head for of_row in rows if overclaims(self.by_head[head] for head in of_row) for head in of_row
        )


def heads(row: Row) -> frozenset[str]:
    """The heads of all sessions of the row's researcher on its board, counted or not."""
    return frozenset((*(session.head for session in row.sessions), *(item.session.head for item in row.left_out)))


def load(
    folder: Path = ENTRIES,
    *,
    cache: Path | None = None,
    reproducers: frozenset[str] | None = None,
    boards: Sequence[Official] | None = None,
) -> Collection:
    """All that is published in `folder`, every bundle that is here verified.

    Args:
        cache: where `bpbench check --download` keeps bundles (default: $BPBENCH_HOME/bundles).
        reproducers: whose reproductions count (default: leaderboard/reproducers.txt).
        boards: the official ones (default: leaderboard/official.json).

    Raises:
        ConfigError: there is no such folder.
        HarnessError: an entry is not what `bpbench check` accepts; the first problem is named.
    """
    from harness.errors import HarnessError
    from leaderboard import scan, standings
    from leaderboard.retrained import listed

    who = listed(REPRODUCERS) if reproducers is None else reproducers
    found = scan.scan(folder, cache or scan.default_cache(), who, boards)
    if found.problems:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise HarnessError(f"{found.problems[0]}{more}; `bpbench check {folder}` lists what is wrong")
    return Collection(folder, found.sessions, standings.boards(found.sessions), found.withdrawn)
