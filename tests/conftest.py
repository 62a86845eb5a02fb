"""Options, and the one thing that is dear: prepared data for the tiny task."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

EXPLOITS = Path(__file__).absolute().parent / "exploits"
# Whoever begins one of these last works on alone.
LONGEST = (
    "test_resume.py",
    "test_llm_sessions.py",
    "test_levels.py",
    "test_scorer_process.py",
    "test_local_model.py",
    "test_multirun.py",
    "test_on_device.py",
    "test_wheel.py",
    "test_study.py",
    "test_account.py",
    "test_tracking_wandb.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run what takes minutes")
    parser.addoption("--gpu", action="store_true", help="also run what needs an accelerator")
    parser.addoption("--exploits", action="store_true", help="also run the whole exploit suite")


def pytest_configure(config: pytest.Config) -> None:
    # No limits of time: on a machine that is busy any example may take long.
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("quick", patient, max_examples=25)
    settings.register_profile("thorough", patient, max_examples=200)
    settings.load_profile("thorough" if config.getoption("--slow") else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in ("slow", "gpu"):
        if not config.getoption(f"--{marker}"):
            for item in items:
                if marker in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"needs --{marker}"))
    if not config.getoption("--exploits") and not any(asks_for_exploits(argument) for argument in config.args):
        # Left out rather than skipped: over a hundred lines of skips would hide the others.
        left_out = [item for item in items if "exploits" in item.keywords]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if "exploits" not in item.keywords]
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported by now stays: without this every full collection goes through half a million of its objects."""
    gc.collect()
    gc.freeze()


def asks_for_exploits(argument: str) -> bool:
    """Whether a path on the command line lies in tests/exploits."""
    path = Path(argument.split("::", maxsplit=1)[0]).absolute()
    return path == EXPLOITS or EXPLOITS in path.parents


@pytest.fixture(autouse=True)
def own_cores() -> Iterator[None]:
    """A test that sets a backend up in this process leaves the other tests their cores."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if before is not None:
        os.sched_setaffinity(0, before)


@pytest.fixture(scope="session")
def bpbench_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of the test run's own, so that tests neither use nor change what the user has prepared."""
    home = tmp_path_factory.mktemp("bpbench_home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPBENCH_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def tiny_overrides() -> list[str]:
    """A dry run: about a second an experiment, deterministic, no network."""
    return ["task=tiny", "backend=null", "data=synthetic"]
