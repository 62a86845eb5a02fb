"""When to ask again: back-off with jitter, a budget for each kind of failure, the provider's own wish first."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from harness.errors import LLMError
from harness.llm.exchange import CallFailed, Outcome
from harness.views import text

# An overloaded service is waited for about an hour: a night must not be lost to it.
BUDGETS: Mapping[Outcome, int] = MappingProxyType(
    {
        Outcome.RATE_LIMIT: 40,
        Outcome.SERVER: 40,
        Outcome.UNREACHABLE: 10,
        Outcome.TIMEOUT: 3,
        Outcome.MALFORMED: 5,
    }
)
MAX_CHARGED_TRIES = 5  # of failures that may have cost something, and count as if they had
MAX_WAITED_SECONDS = 3600.0  # by one request, when the service says for how long
FACTOR = 2.0
MAX_WAIT_SECONDS = 120.0
MAX_RETRY_AFTER_SECONDS = 900.0  # who asks for more is asked to resume later


@dataclass
class Retries:
    """The tries of one request."""

    first_wait_seconds: float
    rng: random.Random
    used: Counter[Outcome] = field(default_factory=Counter)
    num_charged: int = 0
    waited_seconds: float = 0.0  # as it was asked for

    def wait_seconds(self, failed: CallFailed) -> float:
        """How long to wait before the next try.

        Raises:
            LLMError: none: the budget is spent, the failure is final, or the provider asks for too long a wait.
        """
        if failed.outcome not in BUDGETS:
            raise LLMError(str(failed)) from failed
        self.used[failed.outcome] += 1
        self.num_charged += failed.charged
        tries = self.used[failed.outcome]
        if tries > BUDGETS[failed.outcome] or self.num_charged > MAX_CHARGED_TRIES:
            raise LLMError(
                f"asked {self.used.total()} times, {failed.outcome} {text.count(tries, 'time')}: {failed}; "
                "when the service is well again, resume"
            ) from failed
        if failed.retry_after_seconds is not None:
            return self._as_asked(failed.retry_after_seconds, failed)
        longest = min(MAX_WAIT_SECONDS, self.first_wait_seconds * FACTOR**tries)
        return self.rng.uniform(longest / 2, longest)

    def _as_asked(self, seconds: float, failed: CallFailed) -> float:
        self.waited_seconds += seconds
        if seconds > MAX_RETRY_AFTER_SECONDS or self.waited_seconds > MAX_WAITED_SECONDS:
            raise LLMError(f"the service asks to wait {seconds:.0f} s: {failed}; resume the session then") from failed
        return seconds + self.rng.uniform(0, self.first_wait_seconds)
