"""Researchers. The folder is the registry: `agent.name` is a module here, and its `make` takes `agent.options`.

`make(**options) -> Agent` names every option as a keyword with a type; that signature is what options are checked
against. Modules import their libraries when they propose, not when they are loaded.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from harness.config import AgentConfig
from harness.errors import ConfigError
from harness.protocols import Agent, Checked, NeedsDesk


def available() -> list[str]:
    """The names that `agent.name` may have."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(config: AgentConfig) -> Agent:
    """The researcher that `config` names. Raises ConfigError for an unknown name or option, or a bad value."""
    if config.name not in available():
        raise ConfigError(f"unknown agent.name '{config.name}'; valid: {', '.join(available())}")
    make: Callable[..., Agent] = importlib.import_module(f"{__name__}.{config.name}").make
    _check_options(config, make)
    return make(**config.options)


def check(agent: Agent) -> None:
    """What can be known to be missing before anything is made. Raises ConfigError."""
    if isinstance(agent, Checked):
        agent.check()


def needs_llm(agent: Agent) -> bool:
    """Whether `agent` asks the model of the `llm` group."""
    return isinstance(agent, NeedsDesk) and agent.needs_llm


def _check_options(config: AgentConfig, make: Callable[..., Agent]) -> None:
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(make).parameters
    hints = typing.get_type_hints(make)
    for name, value in config.options.items():
        if name not in parameters:
            valid = ", ".join(parameters) or "(none)"
            raise ConfigError(f"unknown key '{name}' in agent.options for agent={config.name}; valid: {valid}")
        if not _fits(value, hints[name]):
            expected = getattr(hints[name], "__name__", str(hints[name]))
            raise ConfigError(f"agent.options.{name} must be {expected}, not {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, bool):
        return bool in options
    return isinstance(value, options) or (isinstance(value, int) and float in options)
