"""Where the published entries are: in a clone of the repository. A wheel does not carry them."""

from __future__ import annotations

from pathlib import Path

ENTRIES = Path(__file__).resolve().parent / "entries"
REPRODUCERS = Path(__file__).resolve().parent / "reproducers.txt"
OFFICIAL = Path(__file__).resolve().parent / "official.json"
