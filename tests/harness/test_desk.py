"""Tries, waits, budgets, limits and charges, with a clock and a client whose answers are written down."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.config import AgentConfig, Config, LLMConfig, PriceConfig, SessionConfig
from harness.desk import CapReached, Line, SessionDesk
from harness.errors import ConfigError, JournalError, LLMError
from harness.fold import apply, fold
from harness.journal import Journal, read
from harness.llm import price as llm_price
from harness.llm.exchange import CallFailed, Outcome, Reply, Request
from harness.llm.retries import BUDGETS, MAX_CHARGED_TRIES, MAX_WAIT_SECONDS, MAX_WAITED_SECONDS, Retries
from harness.llm.store import Store, redact, secrets_of
from harness.records import SessionState, Smoke, Status

REQUEST = Request(({"role": "user", "content": "x" * 1000},), ())
PRICE = PriceConfig(input_usd_per_million=2.0, output_usd_per_million=10.0)


def answer(prompt_tokens: Any = 100, completion_tokens: Any = 50) -> Reply:
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return Reply("fine", (), "stop", False, False, {"role": "assistant", "content": "fine"}, usage, "m-1")


def failed(outcome: Outcome, *, charged: bool = False, retry_after: float | None = None) -> CallFailed:
    return CallFailed(outcome, "it failed", charged=charged, retry_after_seconds=retry_after)


@dataclass
class WrittenClient:
    """Answers what is written down, in order; then always the last."""

    script: list[Reply | BaseException]
    timeouts: list[float] = field(default_factory=list)

    def send(self, request: Request, timeout_seconds: float) -> Reply:
        self.timeouts.append(timeout_seconds)
        told = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(told, BaseException):
            raise told
        return told


@dataclass
class Place:
    """A journal in the middle of a researcher's turn."""

    journal: Journal
    config: Config
    state: SessionState
    waits: list[float] = field(default_factory=list)
    smoked: list[str] = field(default_factory=list)
    client: WrittenClient | None = None

    def write(self, type_: str, /, **data: Any) -> None:
        self.state = apply(self.state, self.journal.append(type_, **data))

    def smoke(self, source: str) -> Smoke:
        self.smoked.append(source)
        return Smoke(Status.OK, num_parameters=len(source))

    def desk(self, *script: Reply | BaseException) -> SessionDesk:
        self.client = WrittenClient(list(script) or [answer()])
        store = Store(self.journal.path.parent / "llm", ("a-secret",))
        line = Line(self.client, store, self.waits.append, lambda: self.state.last_at or 0.0, random.Random(0))
        return SessionDesk(self.config, lambda: self.state, self.write, self.smoke, line)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    config = Config(
        agent=AgentConfig("llm"),
        llm=LLMConfig("it", "openai/it", max_output_tokens=1000, price=PRICE),
        session=SessionConfig(),
    )
    with Journal.create(tmp_path / "journal.jsonl") as journal:
        opened = journal.append("session_open", config={}, unranked=[])
        made = Place(journal, config, fold([opened, journal.append("proposal_started", index=0)]))
        yield made


def test_a_calm_call(place: Place) -> None:
    assert place.desk().ask(REQUEST).text == "fine"
    llm = place.state.llm
    assert (llm.num_calls, llm.prompt_tokens, llm.completion_tokens, llm.outcomes) == (1, 100, 50, {"ok": 1})
    assert llm.cost_usd == pytest.approx((100 * 2 + 50 * 10) / 1e6) and llm.in_flight is None


def test_what_went_out_is_recorded_without_secrets(place: Place) -> None:
    place.desk(replace(answer(), sent={"user": "a-secret", "top_p": 1.0})).ask(REQUEST)
    (finished,) = [record for record in read(place.journal.path)[0] if record.type == "llm_call_finished"]
    assert finished.data["sent"] == {"user": "[redacted]", "top_p": 1.0}


def test_each_kind_of_failure_has_its_own_budget(place: Place) -> None:
    for outcome, budget in BUDGETS.items():
        place.waits.clear()
        desk = place.desk(failed(outcome))
        with pytest.raises(LLMError, match=f"asked {budget + 1} times, {outcome} {budget + 1} times.*bpbench resume"):
            desk.ask(REQUEST)
        assert len(place.waits) == budget
    script = [failed(outcome) for outcome, budget in BUDGETS.items() for _ in range(budget)]
    assert place.desk(*script, answer()).ask(REQUEST).text == "fine"


def test_failures_that_may_have_cost_something_are_not_repeated_for_an_hour(place: Place) -> None:
    with pytest.raises(LLMError, match=f"asked {MAX_CHARGED_TRIES + 1} times"):
        place.desk(failed(Outcome.SERVER, charged=True)).ask(REQUEST)
    assert len(place.waits) == MAX_CHARGED_TRIES


def test_a_service_that_names_its_waits_is_not_waited_for_all_night(place: Place) -> None:
    with pytest.raises(LLMError, match="asks to wait 600 s"):
        place.desk(failed(Outcome.RATE_LIMIT, retry_after=600.0)).ask(REQUEST)
    assert sum(place.waits) <= MAX_WAITED_SECONDS + len(place.waits)


def test_waits_grow_with_jitter_to_a_limit() -> None:
    retries = Retries(1.0, random.Random(1))
    waits = [retries.wait_seconds(failed(Outcome.RATE_LIMIT)) for _ in range(10)]
    for number, wait in enumerate(waits, start=1):
        longest = min(MAX_WAIT_SECONDS, 2.0**number)
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == 10


def test_what_the_provider_asks_for_is_waited(place: Place) -> None:
    desk = place.desk(failed(Outcome.RATE_LIMIT, retry_after=30.0), answer(), failed(Outcome.SERVER, retry_after=5e3))
    desk.ask(REQUEST)
    assert 30.0 <= place.waits[0] <= 31.0
    with pytest.raises(LLMError, match="asks to wait 5000 s"):
        desk.ask(REQUEST)


def test_what_is_final_is_not_tried_again(place: Place) -> None:
    with pytest.raises(
        LLMError, match=r"it failed; nothing is lost: mended at the server .* other settings are another"
    ):
        place.desk(failed(Outcome.REFUSED)).ask(REQUEST)
    assert not place.waits and place.state.llm.outcomes == {"refused": 1}


def test_failures_that_may_have_cost_something_are_charged_at_the_worst(place: Place) -> None:
    place.desk(failed(Outcome.SERVER), failed(Outcome.TIMEOUT, charged=True), answer()).ask(REQUEST)
    worst = llm_price.worst(REQUEST, 1000, 600.0, PRICE)
    llm = place.state.llm
    assert llm.prompt_tokens == worst.prompt_tokens + 100 and llm.completion_tokens == 1000 + 50
    assert worst.prompt_tokens > 1000 and worst.cost_usd is not None
    assert llm.cost_usd == pytest.approx(worst.cost_usd + 0.0007)


@pytest.mark.parametrize("wrong", [None, -1, "many", 10**9, True, 1.5])
def test_impossible_counts_are_charged_at_the_worst(place: Place, wrong: Any) -> None:
    place.desk(answer(prompt_tokens=wrong)).ask(REQUEST)
    assert place.state.llm.completion_tokens == 1000


def test_a_call_that_a_kill_cut_off_keeps_its_worst_case(place: Place) -> None:
    with pytest.raises(KeyboardInterrupt):
        place.desk(KeyboardInterrupt()).ask(REQUEST)
    in_flight = place.state.llm
    assert in_flight.in_flight is not None and in_flight.completion_tokens == 1000
    place.write("resumed", reason="test")
    place.write("proposal_started", index=0)
    assert place.state.llm.outcomes == {"lost": 1} and place.state.llm.completion_tokens == 1000
    place.desk().ask(REQUEST)
    assert place.state.llm.completion_tokens == 1050 and place.state.llm.num_calls == 2


def test_a_turn_begun_again_hears_the_same_answers(place: Place) -> None:
    other = replace(REQUEST, messages=({"role": "user", "content": "y"},))
    desk = place.desk(answer(1, 1), answer(2, 2))
    first, second = desk.ask(REQUEST), desk.ask(other)
    smoke = desk.smoke("source")
    place.write("resumed", reason="test")
    place.write("proposal_started", index=0)
    again = place.desk(answer(9, 9))
    assert (again.ask(REQUEST), again.ask(other), again.smoke("source")) == (first, second, smoke)
    assert place.state.llm.num_calls == 2 and place.smoked == ["source"]
    assert again.ask(REQUEST).usage["prompt_tokens"] == 9, "what comes after the record is asked"


def test_behind_a_request_that_was_refused_the_record_still_holds(place: Place) -> None:
    """As a turn goes on without its past: the refusal is asked for again, what was paid for behind it is not."""
    refused, folded = (replace(REQUEST, messages=({"role": "user", "content": word},)) for word in ("long", "short"))
    desk = place.desk(answer(1, 1), failed(Outcome.REFUSED), answer(2, 2))
    first = desk.ask(REQUEST)
    with pytest.raises(LLMError):
        desk.ask(refused)
    second = desk.ask(folded)
    place.write("resumed", reason="test")
    place.write("proposal_started", index=0)
    again = place.desk(failed(Outcome.REFUSED), answer(9, 9))
    assert again.ask(REQUEST) == first
    with pytest.raises(LLMError):
        again.ask(refused)
    assert again.ask(folded) == second
    assert again.ask(REQUEST).usage["prompt_tokens"] == 9


def test_a_turn_that_goes_another_way_is_asked_anew(place: Place) -> None:
    desk = place.desk(answer(1, 1))
    desk.ask(REQUEST)
    desk.smoke("source")
    place.write("resumed", reason="test")
    place.write("proposal_started", index=0)
    again = place.desk(answer(9, 9))
    other = replace(REQUEST, messages=({"role": "user", "content": "y"},))
    assert again.ask(other).usage["prompt_tokens"] == 9
    again.smoke("source")
    assert place.smoked == ["source", "source"], "behind another answer the record no longer holds"


def test_an_unfinished_smoke_run_is_run_again(place: Place) -> None:
    place.write("smoke_started", index=0, source_sha256="0" * 64)
    place.write("resumed", reason="test")
    place.write("proposal_started", index=0)
    place.desk().smoke("source")
    assert place.smoked == ["source"] and place.state.turn is not None and len(place.state.turn.smokes) == 1


def test_tokens_have_a_limit_that_is_never_crossed(place: Place) -> None:
    worst = llm_price.worst(REQUEST, 1000, 600.0, PRICE).tokens
    place.config.session.max_llm_tokens = worst + 150
    desk = place.desk()
    desk.ask(REQUEST)
    desk.ask(REQUEST)
    with pytest.raises(CapReached, match=f"max_llm_tokens={worst + 150}: 300 are used, the next call may take {worst}"):
        desk.ask(REQUEST)
    assert place.state.llm.num_calls == 2


def test_dollars_have_a_limit_and_need_a_price(place: Place) -> None:
    worst = llm_price.worst(REQUEST, 1000, 600.0, PRICE).cost_usd
    assert worst is not None
    place.config.session.max_cost_usd = worst + 0.0005
    desk = place.desk()
    desk.ask(REQUEST)
    with pytest.raises(CapReached, match=r"max_cost_usd=.*\$0\.0007 are spent"):
        desk.ask(REQUEST)
    place.config.llm.price = PriceConfig()
    with pytest.raises(ConfigError, match="price of a call is unknown"):
        desk.ask(REQUEST)


def test_hours_shorten_a_call_and_end_the_session(place: Place) -> None:
    place.config.session.max_hours = 0.1
    desk = place.desk()
    desk.ask(REQUEST)
    assert place.client is not None and 300 < place.client.timeouts[0] <= 360
    place.state = replace(place.state, working_seconds=400.0)
    with pytest.raises(CapReached, match=r"max_hours=0\.1 was reached"):
        desk.ask(REQUEST)


def test_a_model_that_was_not_chosen_is_asked_for(place: Place) -> None:
    desk = place.desk()
    bare = SessionDesk(place.config, desk.state, desk.write, desk.run_smoke, replace(desk.line, client=None))
    with pytest.raises(ConfigError, match="choose one with llm=NAME"):
        bare.ask(REQUEST)


def test_the_journal_refuses_calls_out_of_place(place: Place) -> None:
    with pytest.raises(JournalError, match="call 3 after 0"):
        place.write(
            "llm_call_started",
            number=3,
            index=0,
            request_sha256="",
            prompt_tokens=1,
            completion_tokens=1,
            cost_usd=None,
        )
    with pytest.raises(JournalError, match="call 0 was not started"):
        place.write(
            "llm_call_finished",
            **{"number": 0, "outcome": "ok", "reply_sha256": None, "prompt_tokens": 1, "completion_tokens": 1},
            **{"cost_usd": None, "seconds": 1.0},
        )


def test_prices() -> None:
    price = replace(PRICE, cached_input_usd_per_million=0.2, cache_write_usd_per_million=2.5, usd_per_hour=3.6)
    worst = llm_price.worst(REQUEST, 1000, 100.0, price)
    assert worst.cost_usd == pytest.approx((worst.prompt_tokens * 2.5 + 1000 * 10) / 1e6 + 0.1)
    usage = {
        **{"prompt_tokens": 1000, "completion_tokens": 10, "cache_creation_input_tokens": 300},
        "prompt_tokens_details": {"cached_tokens": 600},
    }
    charge = llm_price.actual(usage, worst, 10.0, price)
    assert charge.cost_usd == pytest.approx((100 * 2 + 600 * 0.2 + 300 * 2.5 + 10 * 10) / 1e6 + 0.01)
    assert llm_price.actual(usage, worst, 10.0, PriceConfig()).cost_usd is None
    assert llm_price.actual(usage, worst, 10.0, PriceConfig(usd_per_hour=3.6)).cost_usd == pytest.approx(0.01)
    assert not llm_price.is_free(PriceConfig()) and llm_price.is_free(PriceConfig(0.0, 0.0))


def test_secrets_are_known_by_their_variables() -> None:
    environment = {"OPENAI_API_KEY": "sk-12345678", "HOME": "/home/me-and-you", "MY_VALUE": "plain", "X_TOKEN": "short"}
    assert secrets_of(environment) == ("sk-12345678",)
    assert secrets_of(environment, ["MY_VALUE"]) == ("sk-12345678", "plain")
    assert redact("a sk-12345678 b", ("sk-12345678",)) == "a [redacted] b"


def test_what_is_stored_is_checked_when_it_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path, ("a-secret",))
    digest = store.put("replies", {"text": "the a-secret"})
    assert store.get("replies", digest) == {"text": "the [redacted]"}
    path = tmp_path / "replies" / f"{digest}.json"
    path.write_text(path.read_text().replace("the", "The"))
    assert store.get("replies", digest) is None and store.get("replies", "0" * 64) is None
