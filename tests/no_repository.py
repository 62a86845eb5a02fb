"""A session's repository for tests that are not about it: git would take most of a simulated session's time."""

from __future__ import annotations

import hashlib

from leaderboard.history import History


class NoRepository:
    """In the place of `Workspace`, where nobody looks at ids of commits."""

    def commit_stock(self, source: str, time: float) -> str:
        return "0" * 40

    def commit_experiment(self, index: int, source: str, message: str, time: float, *, keep: bool) -> str:
        return hashlib.sha1(f"{index} {source}".encode()).hexdigest()

    def holds(self, commit: str) -> bool:
        return True


class ComputedRepository:
    """The same with git's ids, which `bpbench verify` recomputes; tests/leaderboard/test_bundle.py asks git itself."""

    def __init__(self) -> None:
        self.made = History()
        self.stock = ""
        self.commits: dict[int, str] = {}
        self.kept: dict[int, str] = {}

    def commit_stock(self, source: str, time: float) -> str:
        self.stock = self.made.commit(source, "Stock train.py", None, time)
        return self.stock

    def commit_experiment(self, index: int, source: str, message: str, time: float, *, keep: bool) -> str:
        before = [self.kept[earlier] for earlier in sorted(self.kept) if earlier < index]
        commit = self.made.commit(source, message.replace("\0", ""), [self.stock, *before][-1], time)
        self.commits[index] = commit
        if keep:
            self.kept[index] = commit
        return commit

    def holds(self, commit: str) -> bool:
        return commit in self.commits.values()
