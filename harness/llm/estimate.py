"""What a session's model will cost, said before the first call."""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness import sizes
from harness.agents import _prompt
from harness.agents._tools import Offer
from harness.agents.llm import LLM, prompt_tokens, room_tokens
from harness.config import Config, LLMConfig
from harness.errors import ConfigError
from harness.llm import price as llm_price
from harness.opening import instructions
from harness.protocols import Agent

# An assumption, and said to be one: nobody can know how much a model will think.
ANSWERS_PER_EXPERIMENT = 3
_LEAST_FACTS_TOKENS = 500  # of task, device and noise, with no history yet
TOKENS_PER_ANSWER, WITH_HIGH_EFFORT = 4_000, 10_000
_BESIDE_THE_FILE_TOKENS = 3_000  # the form of an answer, tools, facts, and a history that grows


@dataclass(frozen=True)
class Estimate:
    """Dollars, None where a price or the number of experiments is unknown."""

    num_experiments: int | None
    prompt_tokens: int
    answer_tokens: int
    likely_usd: float | None
    most_usd: float | None


def estimate(config: Config, agent: Agent) -> Estimate:
    """For a session of `agent`, which asks the model of `config.llm`."""
    llm, price = config.llm, config.llm.price
    program = instructions(config)
    prompt = _prompt.num_tokens(program, sizes.stock_of(config.task)) + _BESIDE_THE_FILE_TOKENS
    answer = min(WITH_HIGH_EFFORT if _thinks_long(llm) else TOKENS_PER_ANSWER, llm.max_output_tokens)
    likely = most = None
    num = config.session.experiments
    priced = price.input_usd_per_million is not None and price.output_usd_per_million is not None
    if priced and num is not None and isinstance(agent, LLM):
        room = room_tokens(agent, llm.context_tokens, llm.max_output_tokens)
        likely = num * ANSWERS_PER_EXPERIMENT * _usd(config, prompt, answer)
        most = num * agent.max_calls() * _usd(config, room, llm.max_output_tokens)
    if most is not None and config.session.max_cost_usd is not None:
        most = min(most, config.session.max_cost_usd)
    return Estimate(num, prompt, answer, likely, most)


def _thinks_long(llm: LLMConfig) -> bool:
    thinking = llm.extra.get("thinking")
    return llm.effort in ("high", "xhigh", "max") or (isinstance(thinking, dict) and thinking.get("type") == "enabled")


def check_cap(config: Config, agent: Agent) -> None:
    """Raises ConfigError where not even one call fits below session.max_llm_tokens and max_cost_usd."""
    cap, price, llm = config.session.max_cost_usd, config.llm.price, config.llm
    if not isinstance(agent, LLM):
        return
    tokens = config.session.max_llm_tokens
    # The worst case counts a byte as a token (harness/llm/price.py); the first prompt holds at least these.
    least = len((instructions(config) + sizes.stock_of(config.task)).encode()) + llm.max_output_tokens
    if tokens is not None and tokens < least:
        raise ConfigError(
            f"session.max_llm_tokens={tokens}: one call of llm={llm.name} may take {least} and more, so none would be "
            "made; raise it, or lower llm.max_output_tokens"
        )
    if cap is None or price.input_usd_per_million is None:
        return
    one = _usd(config, room_tokens(agent, llm.context_tokens, llm.max_output_tokens), llm.max_output_tokens)
    if one > cap:
        raise ConfigError(
            f"session.max_cost_usd={cap:g}: one call of llm={llm.name} may cost ${one:.2f}, so none would be made; "
            "raise it, or lower llm.max_output_tokens"
        )


def check_room(config: Config, agent: Agent) -> None:
    """Raises ConfigError where not even the stock script fits: found later, it would cost hours of training."""
    if not isinstance(agent, LLM):
        return
    llm = config.llm
    tools = json.dumps(Offer(agent.repairs, agent.lookups, agent.smokes, may_stop=True, with_tools=llm.tools).tools())
    needed = _prompt.num_tokens(instructions(config), sizes.stock_of(config.task), tools) + _LEAST_FACTS_TOKENS
    room = prompt_tokens(agent, llm.context_tokens, llm.max_output_tokens)
    if needed > room:
        raise ConfigError(
            f"beside an answer and later exchanges there is room for {room} tokens, and the first prompt takes about "
            f"{needed}: raise llm.context_tokens={llm.context_tokens} or "
            f"agent.options.context_tokens={agent.context_tokens}, or lower "
            f"llm.max_output_tokens={llm.max_output_tokens}"
        )


def sentence(config: Config, made: Estimate) -> str:
    """The estimate in words, one line."""
    who = f"llm={config.llm.name} asks {config.llm.model}"
    if llm_price.is_free(config.llm.price):
        return f"{who}, which costs nothing"
    limit = config.session.max_cost_usd
    cap = "session.max_cost_usd sets a limit" if limit is None else f"session.max_cost_usd={limit:g} is never crossed"
    if made.likely_usd is None or made.most_usd is None:
        if not llm_price.is_known(config.llm.price):
            return f"{who}: its price is unknown (llm.price), and so is the cost; session.max_llm_tokens sets a limit"
        return f"{who}: no estimate of the cost, which depends on how long it works; {cap}"
    per = f"{ANSWERS_PER_EXPERIMENT} answers of {made.answer_tokens:,} tokens to prompts of {made.prompt_tokens:,}"
    dated = f", prices of {config.llm.price.as_of}" if config.llm.price.as_of else ""
    return (
        f"{who}: about ${made.likely_usd:.2f} for {made.num_experiments} experiments if each takes {per}{dated}; "
        f"at most ${made.most_usd:.2f} before failed tries; {cap}"
    )


def _usd(config: Config, prompt_tokens: int, answer_tokens: int) -> float:
    price = config.llm.price
    inward, outward = price.input_usd_per_million or 0.0, price.output_usd_per_million or 0.0
    return (prompt_tokens * inward + answer_tokens * outward) / 1e6
