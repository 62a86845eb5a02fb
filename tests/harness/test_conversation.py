"""One turn with a model: every answer is bounded, every chance counted, nothing broken is sent back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llm_bench import STOCK
from test_prompt import experiment, view

from harness.agents import _prompt
from harness.agents._conversation import MAX_CALLS, Conversation
from harness.agents._tools import Offer
from harness.llm.exchange import Reply, ToolCall
from harness.records import Proposal, Refused, Smoke, Status, Stop

GOOD = {"hypothesis": "faster", "blocks": [{"search": "RATE = 1.0", "replace": "RATE = 2.0"}]}


def talk(
    *, repairs: int = 2, lookups: int = 2, smokes: int = 1, with_tools: bool = True, budget: int = 50_000
) -> Conversation:
    offer = Offer(repairs, lookups, smokes, may_stop=True, with_tools=with_tools)
    seen = view(experiment(0))
    return Conversation(seen, offer, "SYSTEM", "PROMPT", budget, smoke=ran, refused=print)


def ran(source: str) -> Smoke:
    return Smoke(Status.OK, num_steps=len(source))


def said(
    text: str = "", *calls: tuple[str, Any], finish: str = "stop", refused: bool = False, thought: bool = False
) -> Reply:
    made = [
        ToolCall(f"c{place}", name, arguments if isinstance(arguments, str) else json.dumps(arguments))
        for place, (name, arguments) in enumerate(calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if made:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in made
        ]
        message["thinking_blocks"] = [{"type": "thinking", "thinking": "hm"}]
    return Reply(text, tuple(made), finish, refused, thought, message, {}, "m")


def test_a_proposal_ends_the_turn() -> None:
    ending = talk().take(said("", ("propose_experiment", GOOD)))
    assert isinstance(ending, Proposal) and ending.edit.blocks == (("RATE = 1.0", "RATE = 2.0"),)


def test_the_text_form_is_heard_even_where_there_are_tools() -> None:
    block = "<<<<<<< SEARCH\nRATE = 1.0  # search: log(0.1, 9.0)\n=======\nRATE = 2.0\n>>>>>>> REPLACE\n"
    answer = f"HYPOTHESIS: faster\n{block}"
    assert isinstance(talk().take(said(answer)), Proposal)


def test_a_broken_edit_comes_back_with_its_reason_until_the_chances_are_used() -> None:
    conversation = talk(repairs=2)
    broken = said(
        "",
        ("propose_experiment", {"hypothesis": "lost", "blocks": [{"search": "nowhere", "replace": ""}], "note": "n"}),
    )
    assert conversation.take(broken) is None
    told = conversation.request().messages[-1]
    assert told["role"] == "tool" and "matches 0 times" in told["content"] and "2 more times" in told["content"]
    assert "no line has 'nowhere'" in told["content"]
    assert conversation.take(broken) is None
    assert "1 more time." in conversation.request().messages[-1]["content"]
    ending = conversation.take(broken)
    assert isinstance(ending, Refused) and (ending.code, ending.hypothesis, ending.note) == ("edit", "lost", "n")
    assert "3 answers that could not be used" in ending.reason


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (said("I refuse", refused=True), "declined"),
        (said("HYPOTHESIS: long", finish="length"), "cut off"),
        (said("", ("propose_experiment", GOOD), finish="length"), "cut off"),
        (said("", thought=True), "only thought"),
        (said(""), "empty"),
        (said("hello"), "found no tool call: call propose_experiment"),
        (said("", ("format_disk", {})), "there is no tool"),
        (said("", ("propose_experiment", '{"hypothesis": "x')), "not JSON"),
    ],
)
def test_what_cannot_be_used_is_said_and_counted(reply: Reply, words: str) -> None:
    conversation = talk(repairs=1)
    assert conversation.take(reply) is None
    messages = conversation.request().messages
    assert words in messages[-1]["content"]
    for message in messages:
        assert message["content"] or message.get("tool_calls"), "some providers refuse an empty message"
        for call in message.get("tool_calls", []):
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
    ending = conversation.take(reply)
    assert isinstance(ending, Refused) and ending.code == "no_proposal" and words in ending.reason


def test_every_call_of_an_answer_gets_its_result() -> None:
    conversation = talk()
    reply = said(
        "",
        ("read_experiment", {"experiment": "1"}),
        ("compare_runs", {"first": "1", "second": "baseline"}),
        ("smoke_run", GOOD),
    )
    assert conversation.take(reply) is None
    messages = conversation.request().messages
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "tool", "tool"]
    assert [item["id"] for item in messages[2]["tool_calls"]] == [message["tool_call_id"] for message in messages[3:]]
    assert messages[2]["thinking_blocks"] and "It ran." in messages[5]["content"]


def test_looks_and_smoke_runs_are_counted() -> None:
    conversation = talk(lookups=1, smokes=1, repairs=2)
    conversation.take(said("", ("read_experiment", {"experiment": "1"}), ("read_experiment", {"experiment": "1"})))
    assert "lookups before this experiment are used" in conversation.request().messages[-1]["content"]
    conversation.take(said("", ("smoke_run", GOOD), ("smoke_run", GOOD)))
    assert "smoke runs before this experiment are used" in conversation.request().messages[-1]["content"]
    ending = conversation.take(said("", ("read_experiment", {"experiment": "1"})))
    assert isinstance(ending, Refused)


def test_a_smoke_run_of_a_broken_edit_uses_no_smoke_run() -> None:
    conversation = talk(smokes=1)
    assert conversation.take(said("", ("smoke_run", {"source": "def"}))) is None
    assert conversation.smokes == 0 and conversation.repairs == 1


def test_a_flood_of_calls_is_not_heard_to_its_end() -> None:
    conversation = talk(lookups=20)
    conversation.take(said("", *[("read_experiment", {"experiment": "1"})] * 50))
    assert conversation.lookups == MAX_CALLS
    assert len(conversation.request().messages[2]["tool_calls"]) == MAX_CALLS


def test_stopping() -> None:
    assert talk().take(said("", ("stop", {"reason": "done"}))) == Stop("the researcher stopped: done")


def test_a_turn_stays_within_its_budget_whatever_is_said() -> None:
    conversation = talk(repairs=20, lookups=20, budget=9_000)
    for _ in range(8):
        assert conversation.take(said("w" * 100_000)) is None
        request = conversation.request()
        assert _prompt.num_tokens(json.dumps([list(request.messages), list(request.tools)])) <= 9_000
        assert [message["role"] for message in request.messages[:2]] == ["system", "user"]
    small = talk(repairs=20, budget=2_500)
    assert small.take(said("w" * 100_000)) is None
    request = small.request()
    assert len(request.messages) == 2 and "Not accepted" in request.messages[1]["content"]


def test_one_answer_costs_one_repair_however_many_calls_it_makes() -> None:
    """Else whoever calls in parallel, as some providers do by default, has spent his chances unheard."""
    conversation = talk(lookups=1, repairs=1)
    look = ("read_experiment", {"experiment": "1"})
    assert conversation.take(said("", *[look] * 6)) is None and conversation.repairs == 1
    told = [message["content"] for message in conversation.request().messages if message["role"] == "tool"]
    assert sum("Not accepted" in words for words in told) == 5 and sum("1 more time" in words for words in told) == 1
    ending = conversation.take(said("", look, look, ("propose_experiment", GOOD)))
    assert isinstance(ending, Proposal), "a good call counts beside bad ones"
    assert isinstance(conversation.take(said("", look, look)), Refused)


def test_a_run_that_is_not_there_costs_a_lookup_and_no_repair() -> None:
    conversation = talk(lookups=2)
    assert conversation.take(said("", ("read_experiment", {"experiment": "9"}))) is None
    assert (conversation.lookups, conversation.repairs) == (1, 0)
    assert "there is no experiment 9" in conversation.request().messages[-1]["content"]


def test_a_proposal_beside_a_smoke_run_that_failed_is_held_back() -> None:
    conversation = talk(smokes=2, repairs=0)
    conversation.smoke = lambda source: Smoke(Status.CRASH, "no such name")
    assert conversation.take(said("", ("smoke_run", GOOD), ("propose_experiment", GOOD))) is None
    assert "Held back" in conversation.request().messages[-1]["content"] and conversation.repairs == 0
    conversation.smoke = ran
    assert isinstance(conversation.take(said("", ("smoke_run", GOOD), ("propose_experiment", GOOD))), Proposal)


def test_the_nearest_line_is_named() -> None:
    conversation = talk()
    near = {"hypothesis": "h", "blocks": [{"search": "RATE = 1.0  # serch: log(0.1, 9.0)", "replace": ""}]}
    assert conversation.take(said("", ("propose_experiment", near))) is None
    assert (
        "no line has 'RATE = 1.0  # serch: log(0.1, 9.0)', the nearest is 'RATE = 1.0  # search"
        in conversation.request().messages[-1]["content"]
    )


def test_line_ends_that_were_not_escaped_are_sent_back_as_they_were_read() -> None:
    conversation = talk()
    raw = '{"hypothesis": "two\nlines", "blocks": [{"search": "nowhere", "replace": ""}]}'
    assert conversation.take(said("", ("propose_experiment", raw))) is None
    (call,) = conversation.request().messages[2]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["hypothesis"] == "two\nlines"


def test_an_edit_that_changes_nothing_is_not_run() -> None:
    same = {"hypothesis": "h", "source": STOCK}
    conversation = talk()
    assert conversation.take(said("", ("propose_experiment", same))) is None
    assert "changes nothing" in conversation.request().messages[-1]["content"]
    other = {"hypothesis": "h", "source": STOCK + "# more\n"}
    assert isinstance(conversation.take(said("", ("propose_experiment", other))), Proposal)
