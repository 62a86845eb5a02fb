"""What models answer, right and wrong, as moves: hostile text of any kind ends in a move or in one line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.agents import _answer
from harness.agents._answer import COMPARE, PROPOSE, READ, SMOKE, STOP, from_call, from_text
from harness.errors import EditRefused
from harness.records import Edit

BLOCK = "<<<<<<< SEARCH\nRATE = 1\n=======\nRATE = 2\n>>>>>>> REPLACE\n"
EDIT = Edit(blocks=(("RATE = 1\n", "RATE = 2\n"),))
FILE = "import lab\ndef build_model(task):\n    return None\n"


def test_a_proposal_in_the_text_form() -> None:
    move = from_text(
        f"Let me think.\n\nHYPOTHESIS: a higher rate,\nas the loss still falls\nNOTE: rate was 1\nand more\n{BLOCK}"
    )
    assert (move.action, move.edit) == (PROPOSE, EDIT)
    assert move.hypothesis == "a higher rate, as the loss still falls" and move.note == "rate was 1\nand more"


@pytest.mark.parametrize(
    "decorated",
    [
        f"## HYPOTHESIS: x\n{BLOCK}",
        f"**HYPOTHESIS:** x\n{BLOCK}",
        f"> HYPOTHESIS: x\n\n```python\n{BLOCK}```\n",
        f"<think>HYPOTHESIS: no\n{BLOCK}</think>\nHYPOTHESIS: x\n{BLOCK}",
        f"HYPOTHESIS: x\r\n{BLOCK}".replace("\n", "\r\n"),
        f"HYPOTHESIS: x\n{BLOCK}\nHYPOTHESIS: y\n",
        f"```\nHYPOTHESIS: x\n{BLOCK}```\n",
        f"Hypothesis: x\n{BLOCK}",
        f"- HYPOTHESIS: x\n{BLOCK}",
        f"HYPOTHESIS: no\n{BLOCK}</think>\nHYPOTHESIS: x\n{BLOCK}",
        "HYPOTHESIS: x\n" + "".join(f"    {line}\n" for line in BLOCK.splitlines()),
        f"HYPOTHESIS: x\n{BLOCK.replace('<<<<<<<', '<<<<<<').replace('>>>>>>>', '>>>>>>>>')}",
        f"HYPOTHESIS: x\nSTOP: no\n{BLOCK}",
        '<tool_call>\n{"name": "propose_experiment", "arguments": {"hypothesis": "x", '
        '"blocks": [{"search": "RATE = 1\\n", "replace": "RATE = 2\\n"}]}}\n</tool_call>',
        '```json\n{"name": "propose_experiment", "parameters": {"hypothesis": "x", '
        '"blocks": "[{\\"search\\": \\"RATE = 1\\\\n\\", \\"replace\\": \\"RATE = 2\\"}]"}}\n```',
    ],
)
def test_models_decorate(decorated: str) -> None:
    move = from_text(decorated)
    assert (move.action, move.hypothesis, move.edit) == (PROPOSE, "x", EDIT)


def test_what_stands_between_blocks_and_behind_their_fence_is_read() -> None:
    move = from_text(f"HYPOTHESIS: x\n```python\n{BLOCK}```\nNOTE: n\n\n```\n{BLOCK}\n{BLOCK}```\nThat is all.\n")
    assert move.edit == Edit(blocks=EDIT.blocks * 3) and str(move.note).split() == ["n", "That", "is", "all."]


def test_a_broken_proposal_is_no_stop() -> None:
    with pytest.raises(EditRefused, match="found no edit"):
        from_text("HYPOTHESIS: x\nSTOP: no\n<<<<<<< SUCHE\n")


def test_who_was_told_of_tools_is_reminded_of_them() -> None:
    with pytest.raises(EditRefused, match="found no tool call: call propose_experiment"):
        from_text("I would raise the rate.", with_tools=True)


@pytest.mark.parametrize(
    ("search", "replace", "expected"),
    [
        ("A = 1\n", "A = 2", "A = 2\n"),  # else the next line would go on behind it
        ("A = 1\n", "", ""),
        ("A = 1", "A = 2", "A = 2"),
        ("A = 1\n", "A = 2\n", "A = 2\n"),
    ],
)
def test_what_takes_the_place_of_whole_lines_is_whole_lines(search: str, replace: str, expected: str) -> None:
    for blocks in ([{"search": search, "replace": replace}], {"search": search, "replace": replace}):
        move = from_call("smoke_run", {"blocks": blocks})
        assert move.edit.blocks == ((search, expected),)


def test_a_file_in_a_call_may_be_fenced_and_named() -> None:
    for path in ("train.py", "./train.py", "trainer/train.py"):
        assert from_call("smoke_run", {"source": f"```python\n{FILE}```", "path": path}).edit == Edit(source=FILE)
    assert from_call("smoke_run", {"source": FILE, "path": "../lab.py"}).edit.path == "../lab.py"


def test_a_whole_file_in_a_fence() -> None:
    move = from_text(f"HYPOTHESIS: x\n```python\n{FILE}```\nand a command:\n```\nls\n```\n")
    assert move.edit == Edit(source=FILE)
    with pytest.raises(EditRefused, match="2 fenced files"):
        from_text(f"HYPOTHESIS: x\n```\n{FILE}```\n```\n{FILE}```\n")


def test_headers_inside_an_edit_are_code() -> None:
    block = "<<<<<<< SEARCH\n# STOP: here\n=======\n# READ: 3\n>>>>>>> REPLACE\n"
    assert from_text(f"HYPOTHESIS: x\n{block}").edit.blocks == (("# STOP: here\n", "# READ: 3\n"),)


@pytest.mark.parametrize(
    ("answer", "action", "runs"),
    [
        ("READ: 3", READ, ("3",)),
        ("READ: experiment 3\n\nI want to see its log.", READ, ("3",)),
        ("```\nREAD: #3\n```", READ, ("3",)),
        ("COMPARE: 3 vs baseline.\nThen I decide.", COMPARE, ("3", "baseline")),
        ("COMPARE: 3, baseline", COMPARE, ("3", "baseline")),
        ("I look first.\nCOMPARE: Baseline 2\n", COMPARE, ("baseline", "2")),
        (f"SMOKE:\n{BLOCK}", SMOKE, ()),
    ],
)
def test_looks(answer: str, action: str, runs: tuple[str, ...]) -> None:
    move = from_text(answer)
    assert (move.action, move.runs) == (action, runs)


def test_stopping_needs_no_edit_and_an_edit_is_no_stop() -> None:
    assert from_text("STOP: all done").action == STOP
    assert from_text(f"HYPOTHESIS: x\nSTOP: not yet\n{BLOCK}").action == PROPOSE


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("", "no line that begins with HYPOTHESIS"),
        ("I would raise the rate.", "no line that begins with HYPOTHESIS"),
        ("HYPOTHESIS: x", "found no edit"),
        (f"HYPOTHESIS:\n{BLOCK}", "is empty"),
        (f"HYPOTHESIS: x\n{BLOCK[:-20]}", "not finished"),
        ("SMOKE:", "found no edit"),
        ("READ: ../../etc/passwd", "number of an experiment"),
        ("COMPARE: 1", "takes two runs"),
        ("x" * 500_000, "the limit is"),
    ],
)
def test_what_cannot_be_read_says_why(answer: str, words: str) -> None:
    with pytest.raises(EditRefused, match=words) as refused:
        from_text(answer)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_tool_calls() -> None:
    arguments = {"hypothesis": "x", "blocks": [{"search": "RATE = 1\n", "replace": "RATE = 2\n"}], "note": "n"}
    for given_as in (arguments, json.dumps(arguments)):
        move = from_call("propose_experiment", given_as)
        assert (move.action, move.hypothesis, move.note, move.edit) == (PROPOSE, "x", "n", EDIT)
    assert from_call("propose_experiment", {"hypothesis": "x", "source": FILE}).edit == Edit(source=FILE)
    assert from_call("read_experiment", '{"experiment": 2}').runs == ("2",)
    assert from_call("compare_runs", {"first": "1", "second": "baseline"}).runs == ("1", "baseline")
    assert from_call("stop", {"reason": "a\nb"}).reason == "a b"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("rm -rf /", {}, "there is no tool"),
        ("propose_experiment", '{"hypothesis": "x", "blocks": [{"sea', "not JSON"),
        ("propose_experiment", "[1]", "must be a JSON object"),
        ("propose_experiment", "[" * 100_000, "not JSON"),
        ("propose_experiment", {}, "hypothesis is empty"),
        ("propose_experiment", {"hypothesis": 3}, "must be a string"),
        ("propose_experiment", {"hypothesis": "x", "blocks": "RATE"}, "blocks must be a list"),
        ("propose_experiment", {"hypothesis": "x", "blocks": [{"search": 1, "replace": "b"}]}, "block 1"),
        ("propose_experiment", {"hypothesis": "x", "blocks": [{"search": "a", "replace": "b"}] * 101}, "101 blocks"),
        ("propose_experiment", {"hypothesis": "x", "source": 5}, "source must be a string"),
        ("read_experiment", {"experiment": True}, "number of an experiment"),
        ("read_experiment", {"experiment": -1}, "number of an experiment"),
        ("smoke_run", "x" * 500_000, "the limit is"),
    ],
)
def test_broken_calls_say_why(name: str, arguments: object, words: str) -> None:
    with pytest.raises(EditRefused, match=words) as refused:
        from_call(name, arguments)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_what_is_shown_later_is_clean_and_short() -> None:
    move = from_call(
        "propose_experiment", {"hypothesis": "\x1b[2Ja\u202eb" + "c" * 9000, "note": "d" * 9000, "source": FILE}
    )
    assert "\x1b" not in move.hypothesis and "\u202e" not in move.hypothesis
    assert len(move.hypothesis) <= _answer.MAX_HYPOTHESIS_CHARS and len(str(move.note)) < _answer.MAX_NOTE_CHARS + 100


@given(
    st.lists(
        st.sampled_from(
            ["HYPOTHESIS: x", "```", "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE", "STOP: y", "SMOKE:", "a", ""]
        )
        | st.text(max_size=20),
        max_size=12,
    ).map("\n".join)
)
def test_any_text_is_a_move_or_a_line(answer: str) -> None:
    try:
        assert from_text(answer).action in (PROPOSE, STOP, SMOKE, READ, COMPARE)
    except EditRefused as refused:
        assert str(refused)


@given(
    st.sampled_from([PROPOSE, STOP, SMOKE, READ, COMPARE]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["hypothesis", "blocks", "source", "search", "replace", "first"]), inner, max_size=4
            )
        ),
        max_leaves=8,
    ),
)
def test_any_arguments_are_a_move_or_a_line(name: str, arguments: object) -> None:
    try:
        from_call(name, json.dumps(arguments))
    except EditRefused as refused:
        assert str(refused)
