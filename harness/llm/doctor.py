"""`bpbench doctor llm=NAME`: is everything there that a session needs of its model? Calls nobody but with `ping`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.agents._tools import Offer
from harness.config import Config, LLMConfig
from harness.errors import ConfigError, LLMError
from harness.llm import client, settings
from harness.llm import line as llm_line
from harness.llm import price as llm_price
from harness.llm.exchange import Request
from harness.llm.settings import NO_LLM
from harness.views import text

_QUESTION = {"role": "user", "content": "Answer with the word ok."}
_MAX_ANSWER_TOKENS = 20_000  # above what LiteLLM lets Claude think, 16,384: a limit below that is refused


@dataclass(frozen=True)
class Finding:
    """One line of the report. `good` is None for what is neither good nor bad."""

    good: bool | None
    what: str

    def __str__(self) -> str:
        return f"{ {True: 'ok  ', False: 'bad ', None: 'note'}[self.good] } {self.what}"


def examine(config: Config, environment: Mapping[str, str], *, ping: bool) -> Iterator[Finding]:
    """What is there and what is missing, one finding after the other."""
    chosen = config.llm
    if chosen.name == NO_LLM:
        yield Finding(None, "no language model is chosen: llm=NAME, with a file in conf/llm")
        return
    yield _key(chosen, environment)
    if elsewhere := settings.redirected(chosen, environment):
        yield Finding(False, elsewhere)
    if chosen.scripted.wire is None:
        yield from _table(chosen)
    yield _price(chosen)
    yield from _window(config)
    form = "tool calls" if chosen.tools else "the text form"
    yield Finding(None, f"answers by {form}, effort {chosen.effort or 'left to the provider'}")
    if ping:
        yield _ping(config, environment)
    else:
        yield Finding(None, "no call was made; --ping makes one small one")


def _key(chosen: LLMConfig, environment: Mapping[str, str]) -> Finding:
    if chosen.key_variable is None:
        return Finding(True, "key: none is needed")
    try:
        client.key(chosen, environment)
    except ConfigError as error:
        return Finding(False, str(error))
    return Finding(True, f"key: {chosen.key_variable} is set")


def _table(chosen: LLMConfig) -> Iterator[Finding]:
    """What LiteLLM's own table says of the model, as far as it knows it."""
    try:
        entry = client.table_entry(str(chosen.model))
    except ConfigError as error:
        yield Finding(False, str(error))
        return
    if entry is None:
        yield Finding(None, f"model: {chosen.model} is not in LiteLLM's table, so nothing can be compared")
        return
    yield Finding(True, f"model: {chosen.model} is in LiteLLM's table")
    if entry.get("deprecation_date"):
        yield Finding(None, f"model: its provider ends it on {text.line(str(entry['deprecation_date']), 20)}")
    if chosen.tools and entry.get("supports_function_calling") is False:
        yield Finding(False, "tools: the table says that it has none: set llm.tools=false")
    yield from _compared("llm.context_tokens", chosen.context_tokens, entry.get("max_input_tokens"))
    yield from _compared("llm.max_output_tokens", chosen.max_output_tokens, entry.get("max_output_tokens"))
    for ours, theirs in (("input", "input_cost_per_token"), ("output", "output_cost_per_token")):
        price, listed = getattr(chosen.price, f"{ours}_usd_per_million"), entry.get(theirs)
        if price is not None and isinstance(listed, int | float) and abs(listed * 1e6 - price) > 1e-9:
            yield Finding(False, f"llm.price.{ours}_usd_per_million={price:g}, and the table says {listed * 1e6:g}")


def _compared(name: str, ours: int, theirs: Any) -> Iterator[Finding]:
    if isinstance(theirs, int) and ours > theirs:
        yield Finding(False, f"{name}={ours} is more than the table's {theirs}")


def _price(chosen: LLMConfig) -> Finding:
    price = chosen.price
    if not llm_price.is_known(price):
        return Finding(None, "price: unknown, so costs are not recorded and session.max_cost_usd cannot be set")
    if llm_price.is_free(price):
        return Finding(True, "price: nothing")
    tokens = [price.input_usd_per_million, price.output_usd_per_million]
    parts = [f"${tokens[0]:g} in and ${tokens[1]:g} out per million tokens" if None not in tokens else None]
    parts.append(f"${price.usd_per_hour:g} an hour" if price.usd_per_hour else None)
    known = ", ".join(part for part in parts if part)
    return Finding(
        True, f"price: {known}, as of {price.as_of or 'an unknown date'} ({price.source or 'no source given'})"
    )


def _window(config: Config) -> Iterator[Finding]:
    chosen, wanted = config.llm, config.agent.options.get("context_tokens")
    room = chosen.context_tokens - chosen.max_output_tokens
    if isinstance(wanted, int) and wanted > room:
        yield Finding(None, f"context: its window has {room} tokens beside an answer, and others may use {wanted}")


def _ping(config: Config, environment: Mapping[str, str]) -> Finding:
    try:
        said, counts = ask(config, environment)
    except (LLMError, ConfigError) as error:
        return Finding(False, f"ping: {text.line(str(error))}")
    return Finding(counts, f"ping: {said}")


def ask(config: Config, environment: Mapping[str, str]) -> tuple[str, bool]:
    """Ask the model one small question: what came of it in words, and whether its tokens were counted.

    With the scaffold's tools, as a session asks: some servers refuse them, some providers go another way with them.

    Raises:
        LLMError, ConfigError: it cannot be asked.
    """
    chosen = replace(config.llm, max_output_tokens=min(_MAX_ANSWER_TOKENS, config.llm.max_output_tokens))
    request = Request((_QUESTION,), Offer(3, 4, 2, may_stop=True, with_tools=chosen.tools).tools())
    client.load()
    started = time.monotonic()
    with llm_line.api_base(chosen, config.session.seed) as base:
        reply = client.LiteLLM(chosen, base, environment).send(request, chosen.timeout_seconds)
    seconds = time.monotonic() - started
    worst = llm_price.worst(request, chosen.max_output_tokens, seconds, chosen.price)
    charge = llm_price.actual(reply.usage, worst, seconds, chosen.price)
    cost = "unknown cost" if charge.cost_usd is None else f"${charge.cost_usd:.6f}"
    counted = (
        "counts no tokens, so every call is charged at its worst case" if charge.assumed else f"{charge.tokens} tokens"
    )
    said = f"called {reply.calls[0].name}" if reply.calls else f"answered {text.line(reply.text, 40)!r}"
    name = text.line(reply.model or "a model without a name", 80)
    return f"{name} {text.line(said, 80)} in {seconds:.1f} s, {counted}, {cost}", not charge.assumed
