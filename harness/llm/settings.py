"""The checks of the `llm` group and of the limits on what a model may cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.agents import needs_llm
from harness.config import Config, LLMConfig
from harness.errors import ConfigError
from harness.llm import price as llm_price
from harness.llm.store import looks_secret
from harness.protocols import Agent, NeedsDesk
from harness.views import text

NO_LLM = "none"
WIRES = ("openai", "anthropic", "ollama")
_OURS = frozenset(
    {"model", "messages", "tools", "api_base", "api_key", "base_url", "max_tokens", "max_completion_tokens"}
    | {"stream", "n", "timeout", "max_retries", "num_retries", "drop_params", "logger_fn", "fallbacks", "mock_response"}
    | {"mock_tool_calls", "mock_delay", "mock_timeout", "custom_llm_provider", "litellm_params"}
    | {"temperature", "top_p", "seed", "reasoning_effort"}
)  # fmt: skip
# Of llm.extra, what is known to change no model; a tuple has the keys of a value that is a group itself.
RANKED_EXTRA: Mapping[str, tuple[str, ...] | None] = {
    "tool_choice": None,
    "parallel_tool_calls": None,
    "num_ctx": None,
    "thinking": ("type", "budget_tokens"),
    "provider": ("require_parameters", "order", "only", "allow_fallbacks", "quantizations"),  # OpenRouter's
}
# Providers of models that somebody serves himself, or has served at an address of his own.
SERVED_ANYWHERE = ("openai", "hosted_vllm", "ollama", "ollama_chat", "lm_studio", "llamafile", "azure", "azure_ai")
_HEADER = re.compile(r"headers?$|authorization", re.IGNORECASE)  # what stands in one is often a key
_BEYOND = {"high": ("xhigh", "max"), "xhigh": ("max",)}  # efforts
_NO_SECRETS = ("prompt_cache_key", "tokenizer")  # whatever they sound like


def unranked(llm: Mapping[str, Any]) -> Iterator[str]:
    """What would make the model of a configuration's group `llm` another than its name says."""
    if llm.get("seed") is not None:
        yield "llm.seed is set: the provider's own sampling is what is compared"
    provider = str(llm.get("model")).partition("/")[0]
    if llm.get("api_base") is not None and provider not in SERVED_ANYWHERE:
        yield f"llm.api_base is set: models of {text.line(provider, 40)} are asked at their provider's own address"
    extra = llm.get("extra")
    for name, value in extra.items() if isinstance(extra, dict) else ():
        inner = sorted(map(str, set(value) - set(RANKED_EXTRA.get(name) or ()))) if isinstance(value, dict) else ()
        if name not in RANKED_EXTRA or inner:
            what = text.line(f"llm.extra.{name}{f'.{inner[0]}' if inner else ''}", 80)
            yield f"{what} is set: it could answer in the model's place, tell it more, or be another model"


def redirected(llm: LLMConfig, environment: Mapping[str, str]) -> str | None:
    """Which variable leads LiteLLM to another server than the provider's, unseen by the session's record; in words."""
    if llm.api_base is not None or llm.scripted.wire is not None:
        return None
    provider = str(llm.model).partition("/")[0].upper()
    names = (f"{provider}_{what}" for what in ("API_BASE", "BASE_URL", "API_URL", "API_ENDPOINT", "ENDPOINT_URL"))
    found = next((name for name in ("USE_LITELLM_PROXY", *names) if environment.get(name)), None)
    return found and (
        f"{found} is set, so {llm.model} would be asked there and the session would name its provider: "
        "unset it, or say llm.api_base=..., which the record shows"
    )


def validate(config: Config, agent: Agent) -> None:
    """Raises ConfigError, one line naming the key."""
    chosen = config.llm.name != NO_LLM
    if needs_llm(agent) and not chosen:
        raise ConfigError(
            f"agent={agent.name} thinks with a language model: choose one with llm=NAME, a file in conf/llm"
        )
    if chosen and not needs_llm(agent):
        raise ConfigError(f"llm={config.llm.name} is not asked by agent={agent.name}: choose agent=llm, or llm=none")
    if chosen:
        _validate_llm(config.llm)
    _validate_caps(config, chosen)
    if isinstance(agent, NeedsDesk) and not agent.needs_llm:
        _refuse_caps(config, agent)


def _validate_llm(llm: LLMConfig) -> None:
    if not llm.model or "/" not in llm.model:
        raise ConfigError(
            f"llm.model must be provider/model, such as openai/gpt-x or ollama_chat/qwen, not {llm.model!r}"
        )
    if not llm.model.isascii():
        raise ConfigError(f"llm.model={llm.model!r}: expected ASCII letters, signs and digits only")
    if not (llm.key_variable or llm.api_base or llm.scripted.wire):
        raise ConfigError("llm.api_base must say where the model is, or llm.key_variable which key its provider wants")
    if not 1 <= llm.max_output_tokens < llm.context_tokens:
        raise ConfigError(
            f"llm.max_output_tokens must be from 1 to below context_tokens={llm.context_tokens}, "
            f"not {llm.max_output_tokens}"
        )
    for name in ("timeout_seconds", "first_wait_seconds"):
        if not getattr(llm, name) > 0:
            raise ConfigError(f"llm.{name} must be above 0, not {getattr(llm, name)!r}")
    for name, value in vars(llm.price).items():
        if isinstance(value, float) and value < 0:
            raise ConfigError(f"llm.price.{name} must be 0 or more, not {value!r}; null where it is unknown")
    _validate_extra(llm)
    _validate_sent(llm)
    if llm.cache_prompts and not llm.model.startswith("anthropic/"):
        raise ConfigError(f"llm.cache_prompts marks prompts for anthropic/ models only, not for {llm.model}")
    if llm.scripted.wire not in (None, *WIRES):
        raise ConfigError(f"llm.scripted.wire must be one of {', '.join(WIRES)}, not {llm.scripted.wire!r}")
    if not 0 <= llm.scripted.fault_rate <= 1:
        raise ConfigError(f"llm.scripted.fault_rate must be from 0 to 1, not {llm.scripted.fault_rate!r}")


def _validate_sent(llm: LLMConfig) -> None:
    """What LiteLLM 1.105.7 would drop without a word, or turn into something else, and a row would still name."""
    provider = str(llm.model).partition("/")[0]
    if provider == "deepseek" and llm.effort is not None:
        raise ConfigError(
            f"llm.effort={llm.effort} does not reach deepseek/ models: set it to null, see llm.extra.thinking"
        )
    longest = {"ollama": "high", "ollama_chat": "high", "openrouter": "xhigh"}.get(provider)
    if longest and llm.effort in _BEYOND[longest]:
        raise ConfigError(f"llm.effort={llm.effort} does not reach {provider}/ models: {longest} is the most that does")
    dropped = {"ollama_chat": "tool_choice", "ollama": "tool_choice", "gemini": "parallel_tool_calls"}.get(provider)
    if dropped in llm.extra:
        raise ConfigError(f"llm.extra.{dropped} does not reach {provider}/ models: leave it out")


def _validate_extra(llm: LLMConfig) -> None:
    if wrong := sorted(_OURS & set(llm.extra)):
        raise ConfigError(f"llm.extra.{wrong[0]} cannot be set there: it is bpbench's own; see the other keys of llm")
    if (secret := next(_secrets_in(llm.extra), None)) is not None:
        raise ConfigError(
            f"llm.extra.{secret} would be written into the session: export the key and give its variable's name as "
            "llm.key_variable; other headers cannot be sent"
        )
    window = llm.extra.get("num_ctx")
    ollama = str(llm.model).partition("/")[0] in ("ollama", "ollama_chat") and llm.scripted.wire is None
    if ollama and not (isinstance(window, int) and window >= llm.context_tokens):
        raise ConfigError(
            f"llm.extra.num_ctx={window} must be at least llm.context_tokens={llm.context_tokens}: Ollama cuts longer "
            "prompts without a word"
        )
    if "tool_choice" in llm.extra and not llm.tools:
        raise ConfigError("llm.extra.tool_choice goes with llm.tools=true only: the text form has no tools to choose")


def _secrets_in(value: Any, path: str = "") -> Iterator[str]:
    """Where `value` holds headers, or what its name calls a secret."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        here, key = f"{path}.{name}".lstrip("."), str(name)
        if _HEADER.search(key) or (isinstance(item, str) and key not in _NO_SECRETS and looks_secret(key, item)):
            yield here
        yield from _secrets_in(item, here)


def _validate_caps(config: Config, chosen: bool) -> None:
    cost, tokens = config.session.max_cost_usd, config.session.max_llm_tokens
    if cost is not None and not cost > 0:
        raise ConfigError(f"session.max_cost_usd must be above 0, not {cost!r}")
    if tokens is not None and tokens < 1:
        raise ConfigError(f"session.max_llm_tokens must be at least 1, not {tokens!r}")
    if cost is not None and chosen and not llm_price.is_known(config.llm.price):
        raise ConfigError(
            f"session.max_cost_usd cannot be kept with llm={config.llm.name}, whose price is unknown: set "
            "llm.price.input_usd_per_million and output_usd_per_million, or session.max_llm_tokens instead"
        )


def _refuse_caps(config: Config, agent: Agent) -> None:
    """A program that pays its own model cannot be held to them: a cap that does nothing must not look like one."""
    for name in ("max_cost_usd", "max_llm_tokens"):
        if getattr(config.session, name) is not None:
            raise ConfigError(
                f"session.{name} does not bind agent={agent.name}, whose program asks its own model: set "
                "session.max_hours, agent.options.max_turn_seconds or the program's own limit (agent=claude_code: "
                "'agent.options.arguments=[--max-budget-usd,\"5\"]', all quotes included)"
            )
