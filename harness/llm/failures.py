"""What a failed call means, vendor by vendor: an answer after all, or a `CallFailed` with what is to be done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from harness.config import LLMConfig
from harness.llm.exchange import UNREADABLE, CallFailed, Outcome, Reply
from harness.views import text

MAX_MESSAGE_CHARS = 300
_OVERFLOW_SIGNS = (
    "context length",
    "context_length",
    "context window",
    "prompt is too long",
    "too many tokens",
    "num_ctx",
)
# What servers say, with an error status, of a model's broken tool call: llama.cpp (two versions), Ollama, Groq.
_UNREADABLE_SIGNS = (
    "model produced output that does not match",
    "failed to parse input at pos",
    "error parsing tool call",
    "tool_use_failed",
)
# What a server says that has no tool calls, or was started without them: llama.cpp (status 500), vLLM, Ollama.
_NO_TOOLS_SIGNS = ("--jinja", "--enable-auto-tool-choice", "does not support tools")
# "billing" alone is no sign: Google's limits by the minute send their callers to the billing page, too.
_NO_CREDIT_SIGNS = ("insufficient_quota", "credit balance", "billing_not_active", "billing_hard_limit")
# OpenAI counts the longest possible answer: however long one waits, such a request never fits into a minute.
_NEVER_FITS = "request too large"
_ONLY_THOUGHTS = "unknown items in responses api response"  # LiteLLM, of an answer without a message or a call
_RETRY_DELAY = re.compile(r'"retryDelay":\s*"([0-9.]{1,9})s"')  # google.rpc.RetryInfo, in the body
_BAD_KEY, _NO_MODEL, _TOO_LARGE, _TOO_MANY = (401, 403), 404, 413, 429
_TIMED_OUT = 408  # OpenRouter's
_NO_CODE = 422  # LiteLLM's own, of an error in an answer that has no code


def answer_in(litellm: Any, error: Exception) -> Reply | None:
    """The model's answer that a server reports as an error of its own; None where the line really failed.

    A provider's filter that stopped the model is the model's refusal. A tool call that the server cannot read is an
    answer that cannot be used: to ask the same again would let a weak model try for nothing, or end its session.
    """
    if _ONLY_THOUGHTS in str(error).lower():
        return Reply("", (), "stop", False, True, {"role": "assistant", "content": ""}, {}, None)
    refused = isinstance(error, litellm.ContentPolicyViolationError)
    words = one_line(error)
    if not refused and not (answered_status(error) and any(sign in str(error).lower() for sign in _UNREADABLE_SIGNS)):
        return None
    finish = "content_filter" if refused else UNREADABLE
    said = words if refused else ""  # a server's words about an answer are not the answer
    return Reply(said, (), finish, refused, False, {"role": "assistant", "content": said}, {}, None)


def failure(litellm: Any, error: Exception, config: LLMConfig) -> CallFailed:
    """What `error` means for the next try."""
    words = f"{config.model}: {one_line(error)}"
    if isinstance(error, litellm.Timeout):
        return CallFailed(Outcome.TIMEOUT, words, charged=True)
    if (status := answered_status(error)) is not None:
        return _by_status(litellm, error, status, words, config)
    if any(type(cause).__name__ in ("ConnectError", "ConnectTimeout") for cause in causes(error)):
        return CallFailed(Outcome.UNREACHABLE, f"{words}; nobody listens at {config.api_base or 'the provider'}")
    if (code := _code_in_answer(error)) is not None:
        return _by_code(code, words)
    advice = "; set that key of llm to null, or choose another model"
    if isinstance(error, litellm.BadRequestError | litellm.AuthenticationError | litellm.NotFoundError):
        # LiteLLM's own, before anything was sent
        return CallFailed(Outcome.REFUSED, words + advice * isinstance(error, litellm.UnsupportedParamsError))
    return CallFailed(Outcome.MALFORMED, words, charged=True)


def _by_status(litellm: Any, error: Exception, status: int, words: str, config: LLMConfig) -> CallFailed:
    lower = str(error).lower()
    if status in _BAD_KEY:
        where = config.key_variable or "llm.key_variable, which names no variable"
        return CallFailed(Outcome.REFUSED, f"{words}; the key was refused: check {where}")
    if status == _NO_MODEL:
        return CallFailed(
            Outcome.REFUSED, f"{words}; check llm.model={config.model} and llm.api_base={config.api_base}"
        )
    if status == _TOO_MANY and not any(sign in lower for sign in (*_NO_CREDIT_SIGNS, _NEVER_FITS)):
        return CallFailed(Outcome.RATE_LIMIT, words, retry_after_seconds=retry_after(error))
    if config.tools and any(sign in lower for sign in _NO_TOOLS_SIGNS):
        advice = "start the server with tool calls, or set llm.tools=false"
        return CallFailed(Outcome.REFUSED, f"{words}; {advice}", status=status)
    if status >= 500:
        return CallFailed(Outcome.SERVER, words, retry_after_seconds=retry_after(error))
    overflow = isinstance(error, litellm.ContextWindowExceededError) or any(sign in lower for sign in _OVERFLOW_SIGNS)
    advice = f"the provider refuses this request (status {status})"
    if status == _TOO_LARGE or overflow:
        advice = "the prompt does not fit: set llm.context_tokens to the model's window, or "
        advice += "agent.options.context_tokens lower"
    elif _NEVER_FITS in lower:
        advice = "lower llm.max_output_tokens, which counts towards the limit, or have the limit raised"
    return CallFailed(Outcome.REFUSED, f"{words}; {advice}", status=status)


def _by_code(code: int, words: str) -> CallFailed:
    """For a failure in the body of a good answer: a provider behind a router may have worked before it failed."""
    if code == _TOO_MANY:
        return CallFailed(Outcome.RATE_LIMIT, words)
    if code == _TIMED_OUT:
        return CallFailed(Outcome.TIMEOUT, words, charged=True)
    if code >= 500 or code == _NO_CODE:
        return CallFailed(Outcome.SERVER, words, charged=True)
    return CallFailed(Outcome.REFUSED, f"{words}; the provider refuses this request (code {code})", status=code)


def answered_status(error: Exception) -> int | None:
    """The HTTP status that a server really answered with; None where none did: LiteLLM invents some."""
    for cause in causes(error):
        if type(cause).__name__ in ("HTTPStatusError", "MaskedHTTPStatusError"):
            response = getattr(cause, "response", None)
            status = getattr(response, "status_code", None)
            return status if isinstance(status, int) else None
    return None


def _code_in_answer(error: Exception) -> int | None:
    """The code of an `error` object in an answer with status 200: LiteLLM raises a bare exception of it."""
    for cause in causes(error):
        code = getattr(cause, "status_code", None) if type(cause) is Exception else None
        if isinstance(code, int) or (isinstance(code, str) and code.isdecimal()):
            return int(code)
    return None


def retry_after(error: Exception) -> float | None:
    """The seconds of a Retry-After header, or of Google's words; None where neither is there, or a date."""
    if told := _RETRY_DELAY.search(str(error)):
        return float(told.group(1)) if told.group(1).count(".") < 2 else None
    for cause in causes(error):
        for headers in (
            getattr(cause, "litellm_response_headers", None),
            getattr(getattr(cause, "response", None), "headers", None),
        ):
            value = headers.get("retry-after") if headers is not None else None
            try:
                return max(0.0, float(value)) if value is not None else None
            except ValueError:
                return None
    return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def one_line(error: Exception) -> str:
    """The first lines of a vendor's message, without its traceback, fit to be shown: a server may say anything."""
    return text.line(str(error).split("Traceback", 1)[0], MAX_MESSAGE_CHARS)
