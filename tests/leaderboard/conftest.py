"""Sessions that several modules of tests look at. Made once: nobody changes them."""

from __future__ import annotations

from pathlib import Path

import published_sessions
import pytest
import simulated
from verified_sessions import METERED

from harness.journal import Record, read
from leaderboard.published import Published


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished session: one experiment worse, one kept, one better than the baseline but not than the best."""
    folder = tmp_path_factory.mktemp("sessions") / "one"
    return simulated.run_session(folder, earlier=((2.001, 1.999, 2.0),), git=True)


@pytest.fixture(scope="session")
def records(session: Path) -> list[Record]:
    return read(session / "journal.jsonl")[0]


@pytest.fixture(scope="session")
def metered(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """The same under the metered clock."""
    bench = simulated.SimulatedBench({"0.6": 0.03}, metered=True)
    folder = simulated.run_session(tmp_path_factory.mktemp("sessions") / "metered", *METERED, bench=bench)
    return read(folder / "journal.jsonl")[0]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """One published session with logs and curves of real length."""
    return published_sessions.one(tmp_path_factory.mktemp("base"), published_sessions.RESEARCHERS[1], 0)
