from __future__ import annotations

from pathlib import Path

import pytest
import simulated


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished session: one experiment worse, one kept, one better than the baseline but not than the best."""
    return simulated.run_session(tmp_path_factory.mktemp("sessions") / "one", earlier=((2.001, 1.999, 2.0),))
