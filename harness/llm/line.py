"""A session's line to its model, from the configuration: the client, the folder of what was said, and for dry runs the
scripted server behind it. Also what of it belongs into the opening record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.config import Config, LLMConfig
from harness.desk import Line
from harness.errors import ConfigError
from harness.llm import client, settings
from harness.llm.store import Store, secrets_of
from harness.scripted_llm.script import Script, load

_API_PATHS = {"openai": "/v1", "anthropic": "", "ollama": ""}  # what each client appends the rest to


@contextlib.contextmanager
def open_line(config: Config, folder: Path, environment: Mapping[str, str]) -> Iterator[Line]:
    """The line of the session in `folder`. Raises ConfigError for a missing key or an unreadable script."""
    names = [config.llm.key_variable] if config.llm.key_variable else []
    store = Store(folder / "llm", secrets_of(environment, names))
    if config.llm.name == settings.NO_LLM:
        yield Line(None, store)
        return
    client.load()  # takes seconds, which are none of the model's
    with api_base(config.llm, config.session.seed) as base:
        yield Line(client.LiteLLM(config.llm, base, environment), store)


@contextlib.contextmanager
def api_base(config: LLMConfig, seed: int) -> Iterator[str | None]:
    """Where the model is; for a scripted one a server that lives as long as the context."""
    wire = config.scripted.wire
    if wire is None:
        yield config.api_base
        return
    from harness.scripted_llm.server import ScriptedServer

    with ScriptedServer(script(config, seed)) as server:
        yield server.url + _API_PATHS[wire]


def script(config: LLMConfig, seed: int) -> Script:
    """The script that `config` names. Raises ConfigError."""
    path, rate = config.scripted.script, config.scripted.fault_rate
    return load(Path(path), seed, rate) if path else Script(seed=seed, fault_rate=rate)


def check(config: LLMConfig, environment: Mapping[str, str], seed: int = 0) -> None:
    """What can be known to be missing before anything is made. Raises ConfigError."""
    if config.name == settings.NO_LLM:
        return
    client.key(config, environment)
    if elsewhere := settings.redirected(config, environment):
        raise ConfigError(elsewhere)
    if config.scripted.wire:
        script(config, seed)


def facts(config: LLMConfig) -> dict[str, Any]:
    """What must be known of the model to compare sessions. The provider's own name for it is with each answer."""
    from importlib.metadata import version

    return {
        "llm": config.name,
        "model": config.model,
        "tools": config.tools,
        "effort": config.effort,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_output_tokens": config.max_output_tokens,
        "window_tokens": config.context_tokens,
        "price_as_of": config.price.as_of,
        "litellm_version": version("litellm"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
