"""The metered clock: a budget of work instead of seconds, for devices whose speed wanders.

Every few seconds the measured code is stopped and the stock script runs for a moment (harness/sentinel.py). Between two
such bursts the device is taken to have done what the stock script would have done at their mean speed; the budget is
used up when that integral reaches the reference tokens of the task. An error of the calibrated rate cancels: what is
left is `stock_per_burst`, how much faster the stock script is in between than within a burst, and that is a property
of the pattern of bursts and not of the moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.records import Burst, MeterPattern

RECENT_BURSTS = 3  # their mean foretells the speed until the next one
# So late no burst is taken: even a doubled speed then leaves the code time for its last snapshot.
LAST_BURST_INTERVALS = 0.75


class Meter(Protocol):
    """Measures how fast the device is now, while nothing else runs on it."""

    def burst(self, seconds: float) -> float:
        """Run the stock script for at least so long; its tokens per second. Raises HarnessError."""


@dataclass
class Integral:
    """The work done so far by one run, in tokens of the stock script. `at_seconds` is always time spent running."""

    pattern: MeterPattern
    budget_tokens: float
    bursts: list[Burst] = field(default_factory=list)
    used_tokens: float = 0.0  # up to the last burst

    def add(self, at_seconds: float, tokens_per_second: float) -> None:
        """Take in a burst after `at_seconds` of running; the first one comes before the code runs, at 0."""
        burst = Burst(at_seconds, tokens_per_second)
        if self.bursts:
            self.used_tokens += slice_tokens(self.bursts[-1], burst, self.pattern.stock_per_burst)
        self.bursts.append(burst)

    @property
    def speed(self) -> float:
        """Tokens per second that the stock script would now do, foretold by the last bursts."""
        recent = self.bursts[-RECENT_BURSTS:]
        return self.pattern.stock_per_burst * sum(burst.tokens_per_second for burst in recent) / len(recent)

    def tokens_at(self, at_seconds: float) -> float:
        """Work done after `at_seconds`, from the last burst on at the speed foretold."""
        return self.used_tokens + self.speed * (at_seconds - self.bursts[-1].at_seconds)

    def seconds_left(self, at_seconds: float) -> float:
        """Running time until the budget is used up, as far as can be told now; not negative."""
        return max(0.0, (self.budget_tokens - self.tokens_at(at_seconds)) / self.speed)

    def is_due(self, at_seconds: float) -> bool:
        interval = self.pattern.interval_seconds
        late = self.seconds_left(at_seconds) < LAST_BURST_INTERVALS * interval
        return not late and at_seconds - self.bursts[-1].at_seconds >= interval


def slice_tokens(before: Burst, after: Burst, stock_per_burst: float) -> float:
    """What the stock script would have done between two bursts."""
    mean = (before.tokens_per_second + after.tokens_per_second) / 2
    return stock_per_burst * mean * (after.at_seconds - before.at_seconds)


def integrate(bursts: Sequence[Burst], stock_per_burst: float, until_seconds: float) -> float:
    """The work of a finished run from its record, in tokens: what `Integral` had counted when it ended."""
    pattern = MeterPattern(interval_seconds=1.0, burst_seconds=0.0, stock_per_burst=stock_per_burst)
    integral = Integral(pattern, 0.0)
    for burst in bursts:
        integral.add(burst.at_seconds, burst.tokens_per_second)
    return integral.tokens_at(until_seconds)
