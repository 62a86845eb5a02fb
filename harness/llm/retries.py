"""When to ask again: back-off with jitter, a budget for each kind of failure, the provider's own wish first."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from harness.errors import LLMError
from harness.llm.exchange import CallFailed, Outcome

# An overloaded service is waited for about an hour: nothing is charged meanwhile, and a night must not be lost to it.
BUDGETS: Mapping[Outcome, int] = MappingProxyType(
    {
        Outcome.RATE_LIMIT: 40,
        Outcome.SERVER: 40,
        Outcome.UNREACHABLE: 10,
        Outcome.TIMEOUT: 3,
        Outcome.MALFORMED: 5,
    }
)
FACTOR = 2.0
MAX_WAIT_SECONDS = 120.0
MAX_RETRY_AFTER_SECONDS = 900.0  # who asks for more is asked to resume later


@dataclass
class Retries:
    """The tries of one request."""

    first_wait_seconds: float
    rng: random.Random
    used: Counter[Outcome] = field(default_factory=Counter)

    def wait_seconds(self, failed: CallFailed) -> float:
        """How long to wait before the next try.

        Raises:
            LLMError: none: the budget is spent, the failure is final, or the provider asks for too long a wait.
        """
        if failed.outcome not in BUDGETS:
            raise LLMError(str(failed)) from failed
        self.used[failed.outcome] += 1
        tries = self.used[failed.outcome]
        if tries > BUDGETS[failed.outcome]:
            raise LLMError(
                f"asked {tries} times, {failed.outcome} each time: {failed}; when the service is well again, resume"
            ) from failed
        asked_for = failed.retry_after_seconds
        if asked_for is not None:
            if asked_for > MAX_RETRY_AFTER_SECONDS:
                raise LLMError(
                    f"the service asks to wait {asked_for:.0f} s: {failed}; resume the session then"
                ) from failed
            return asked_for + self.rng.uniform(0, self.first_wait_seconds)
        longest = min(MAX_WAIT_SECONDS, self.first_wait_seconds * FACTOR**tries)
        return self.rng.uniform(longest / 2, longest)
