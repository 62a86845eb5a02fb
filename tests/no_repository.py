"""A session's repository for tests that are not about it."""

from __future__ import annotations

import hashlib


class NoRepository:
    """In the place of `Workspace`, where hundreds of sessions are simulated: git would take most of the time."""

    def commit_stock(self, source: str, time: float) -> str:
        return "0" * 40

    def commit_experiment(self, index: int, source: str, message: str, time: float, *, keep: bool) -> str:
        return hashlib.sha1(f"{index} {source}".encode()).hexdigest()

    def holds(self, commit: str) -> bool:
        return True
