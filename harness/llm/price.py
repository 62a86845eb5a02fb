"""What a call costs, and the most that it can cost: with our own frozen prices, or by the hour. Unknown is None."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.config import PriceConfig
from harness.llm.exchange import Request

# No tokenizer makes more tokens than bytes; what a provider adds by itself (its words on tools, marks of roles) is not
# in our text.
_OVERHEAD_TOKENS = 1024
_PER_MESSAGE_TOKENS = 16


@dataclass(frozen=True)
class Charge:
    """Tokens and dollars of one try."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    assumed: bool  # not reported by the provider, or impossible: the worst case

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


NOTHING = Charge(0, 0, 0.0, False)


def worst(request: Request, max_output_tokens: int, seconds: float, price: PriceConfig) -> Charge:
    """More than this a try cannot be charged: every byte a token, and the answer as long as allowed."""
    num_bytes = len(json.dumps(request.to_json(), ensure_ascii=False).encode("utf-8", "replace"))
    prompt = num_bytes + _PER_MESSAGE_TOKENS * len(request.messages) + _OVERHEAD_TOKENS
    return _worst(prompt, max_output_tokens, seconds, price)


def _worst(prompt: int, completion: int, seconds: float, price: PriceConfig) -> Charge:
    """So many tokens, each at its dearest."""
    dearest = [price.input_usd_per_million, price.cache_write_usd_per_million]
    known = [value for value in dearest if value is not None]
    cost = None
    if is_known(price):
        cost = (prompt * max(known, default=0.0) + completion * (price.output_usd_per_million or 0.0)) / 1e6
        cost += (price.usd_per_hour or 0.0) * seconds / 3600
    return Charge(prompt, completion, cost, True)


def actual(usage: Mapping[str, Any], worst_case: Charge, seconds: float, price: PriceConfig) -> Charge:
    """The charge that `usage` reports; the worst case where it reports nothing, or what cannot be.

    Of the hour it is what the call took: that is known whatever the provider counts.
    """
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    # No prompt has no tokens: LiteLLM writes 0 where a server reported nothing.
    most = worst_case.prompt_tokens, worst_case.completion_tokens
    if not prompt or completion is None or prompt > most[0] or completion > most[1]:
        return _worst(*most, seconds, price)
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
    written = _count(usage.get("cache_creation_input_tokens"))
    if written is None and isinstance(details, Mapping):
        written = _count(details.get("cache_write_tokens"))  # OpenAI's name
    cost = _cost(prompt, completion, min(cached or 0, prompt), written or 0, price)
    if cost is not None:
        cost += (price.usd_per_hour or 0.0) * seconds / 3600
    return Charge(prompt, completion, cost, False)


def is_known(price: PriceConfig) -> bool:
    """Whether a call's cost can be said: both prices of tokens, or a price of the hour."""
    tokens = price.input_usd_per_million is not None and price.output_usd_per_million is not None
    return tokens or price.usd_per_hour is not None


def is_free(price: PriceConfig) -> bool:
    """Known to cost nothing."""
    return is_known(price) and not (price.input_usd_per_million or price.output_usd_per_million or price.usd_per_hour)


def _cost(prompt: int, completion: int, cached: int, written: int, price: PriceConfig) -> float | None:
    if not is_known(price):
        return None
    plain = price.input_usd_per_million or 0.0
    written = min(written, prompt - cached)
    read_price = plain if price.cached_input_usd_per_million is None else price.cached_input_usd_per_million
    write_price = plain if price.cache_write_usd_per_million is None else price.cache_write_usd_per_million
    total = (prompt - cached - written) * plain + cached * read_price + written * write_price
    return (total + completion * (price.output_usd_per_million or 0.0)) / 1e6


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
