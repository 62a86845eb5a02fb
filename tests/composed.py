"""Configurations of tests, each composed once: Hydra takes longer than a simulated session."""

from __future__ import annotations

import copy
from functools import cache

from harness.compose import compose
from harness.config import Config


def composed(*overrides: str) -> Config:
    """One that may be changed."""
    return copy.deepcopy(_made(*overrides))


@cache
def _made(*overrides: str) -> Config:
    return compose(list(overrides))
