"""What a session does for a researcher while it thinks: asks the model, runs smoke runs, keeps to the limits.

Each is written down before and after. A turn that is cut off by a kill and begun again hears the same answers from the
record: as long as it asks the same, nothing is asked, and paid, a second time.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from harness.codec import from_json, to_json
from harness.config import Config
from harness.errors import ConfigError, EditRefused, LLMError
from harness.integrity import Witness
from harness.llm import price as llm_price
from harness.llm.exchange import CallFailed, Client, Model, Outcome, Reply, Request, ToolCall
from harness.llm.price import Charge
from harness.llm.retries import Retries
from harness.llm.store import Store
from harness.records import SessionState, Smoke, Usage
from harness.turn import Turn

_TURN_MISSING = "a researcher may ask only while it proposes"


class CapReached(Exception):
    """A limit of the session leaves no room for the next call: control flow, caught in harness/session.py."""


class Write(Protocol):
    def __call__(self, type_: str, **data: Any) -> None: ...


@dataclass(frozen=True)
class Line:
    """A session's line to its model, and where what was said is kept."""

    client: Client | None  # None: the researcher brings its own, or needs none
    store: Store
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random)


@dataclass
class SessionDesk:
    """Implements `harness.protocols.Desk` for one turn."""

    config: Config
    state: Callable[[], SessionState]
    write: Write
    run_smoke: Callable[[str], Smoke]
    line: Line
    witness: Witness = field(default_factory=Witness)
    _num_answered: int = 0
    _num_smoked: int = 0
    _on_record: bool = True  # whether the turn so far is the one that was recorded

    @property
    def model(self) -> Model:
        llm = self.config.llm
        return Model(str(llm.model), llm.tools, llm.context_tokens, llm.max_output_tokens)

    @property
    def max_hours(self) -> float | None:
        return self.config.session.max_hours

    def ask(self, request: Request) -> Reply:
        client, store = self.line.client, self.line.store
        if client is None:
            raise ConfigError(f"agent={self.config.agent.name} needs a model: choose one with llm=NAME")
        request_sha256 = store.put("requests", {"model": self.config.llm.model, **request.to_json()})
        if (known := self._recorded_reply(request_sha256)) is not None:
            return known
        retries = Retries(self.config.llm.first_wait_seconds, self.line.rng)
        for attempt in count(1):
            try:
                return self._try(client, request, request_sha256, attempt)
            except CallFailed as failed:
                self.line.sleep(self._wait_seconds(retries, failed))
        raise AssertionError("unreachable")

    def _wait_seconds(self, retries: Retries, failed: CallFailed) -> float:
        try:
            return retries.wait_seconds(failed)
        except LLMError as error:
            words = self.line.store.clean(str(error))
            resume = f"`bpbench resume {self.folder}`"
            if failed.outcome is Outcome.REFUSED:
                # To resume with nothing changed would be refused again, and a session never changes its settings.
                resume = f"mended at the server or provider, {resume} goes on; other settings are another session"
            raise LLMError(f"{words}; nothing is lost: {resume}") from error

    def smoke(self, source: str) -> Smoke:
        digest = hashlib.sha256(source.encode()).hexdigest()
        turn = self._turn()
        done = [smoke for smoke in turn.smokes if smoke.result is not None]
        place, self._num_smoked = self._num_smoked, self._num_smoked + 1
        if self._on_record and place < len(done) and done[place].source_sha256 == digest:
            result = done[place].result
            assert result is not None
            return result
        self._on_record = False
        self.write("smoke_started", index=turn.index, source_sha256=digest)
        smoke = self.run_smoke(source)
        self.write("smoke_finished", index=turn.index, result=to_json(smoke))
        return smoke

    @property
    def num_smoked(self) -> int:
        return sum(smoke.result is not None for smoke in self._turn().smokes)

    @property
    def folder(self) -> Path:
        return self.line.store.folder.parent

    def refused(self, error: EditRefused) -> None:
        if error.family is not None:
            self.witness.note(f"proposal-{self._turn().index:03d}", error.family, str(error))

    @property
    def num_told(self) -> int:
        return self.state().num_told

    def spent(self, usage: Usage) -> None:
        self.write("researcher_spent", usage=to_json(usage))

    def _turn(self) -> Turn:
        turn = self.state().turn
        assert turn is not None, _TURN_MISSING
        return turn

    def _recorded_reply(self, request_sha256: str) -> Reply | None:
        """The answer that this turn got to this request before it was cut off."""
        calls = self._turn().calls
        answered = [call for call in calls if call.outcome is Outcome.OK]
        outcomes = {call.outcome for call in calls if call.request_sha256 == request_sha256}
        if Outcome.REFUSED in outcomes and Outcome.OK not in outcomes:
            return None  # asked again, it costs nothing; and what came behind it is on record as it was
        place, self._num_answered = self._num_answered, self._num_answered + 1
        if not self._on_record or place >= len(answered) or answered[place].request_sha256 != request_sha256:
            self._on_record = False
            return None
        stored = self.line.store.get("replies", answered[place].reply_sha256 or "")
        if stored is None:
            self._on_record = False
            self.write(
                "incident", text=f"the stored answer to call {answered[place].number} is lost: it is asked again"
            )
            return None
        return from_stored(stored)

    def _try(self, client: Client, request: Request, request_sha256: str, attempt: int) -> Reply:
        llm = self.config.llm
        timeout = self._timeout_seconds()
        worst = llm_price.worst(request, llm.max_output_tokens, timeout, llm.price)
        self._check_caps(worst)
        number = self.state().llm.num_calls
        asked = {"number": number, "index": self._turn().index, "request_sha256": request_sha256, "attempt": attempt}
        self.write("llm_call_started", **asked, **asdict(worst))
        begun = self.line.clock()
        try:
            reply = client.send(request, timeout)
        except CallFailed as failed:
            charge = worst if failed.charged else llm_price.NOTHING
            reason = self.line.store.clean(str(failed))
            self._finished(number, failed.outcome, charge, begun, reason=reason, reply_sha256=None)
            raise
        charge = llm_price.actual(reply.usage, worst, self.line.clock() - begun, llm.price)
        self._finished(
            number,
            Outcome.OK,
            charge,
            begun,
            reason=None,
            reply_sha256=self.line.store.put("replies", asdict(reply)),
            finish=reply.finish,
            model=reply.model,
            sent=self.line.store.clean_json(reply.sent),
        )
        return reply

    def _finished(self, number: int, outcome: Outcome, charge: Charge, begun: float, **more: Any) -> None:
        seconds = round(max(0.0, self.line.clock() - begun), 6)
        self.write("llm_call_finished", number=number, outcome=outcome.value, **asdict(charge), seconds=seconds, **more)

    def _timeout_seconds(self) -> float:
        """The time that a call may take: the model's limit, and what is left of the session's hours."""
        hours, longest = self.config.session.max_hours, self.config.llm.timeout_seconds
        if hours is None:
            return longest
        state = self.state()
        since = max(0.0, self.line.clock() - (state.last_at or 0.0))
        left = 3600 * hours - state.working_seconds - since
        if left <= 0:
            raise CapReached(f"session.max_hours={hours:g} was reached")
        return min(longest, left)

    def _check_caps(self, worst: Charge) -> None:
        """A call that could cross a limit is not made."""
        session, spent = self.config.session, self.state().llm
        if session.max_llm_tokens is not None and spent.tokens + worst.tokens > session.max_llm_tokens:
            raise CapReached(
                f"session.max_llm_tokens={session.max_llm_tokens}: {spent.tokens} are used, "
                f"the next call may take {worst.tokens}"
            )
        if session.max_cost_usd is None:
            return
        if spent.cost_usd is None or worst.cost_usd is None:
            raise ConfigError("session.max_cost_usd cannot be kept: the price of a call is unknown; set llm.price")
        if spent.cost_usd + worst.cost_usd > session.max_cost_usd:
            raise CapReached(
                f"session.max_cost_usd={session.max_cost_usd:g}: ${spent.cost_usd:.4f} are spent, "
                f"the next call may cost ${worst.cost_usd:.4f}"
            )


def from_stored(stored: dict[str, Any]) -> Reply:
    """A stored answer. Raises JournalError."""
    calls = tuple(from_json(ToolCall, call) for call in stored["calls"])
    return Reply(**{**stored, "calls": calls})
