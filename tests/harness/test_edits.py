from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.edits import (
    DIVIDER_MARK,
    MAX_GROWTH_BYTES,
    MAX_LITERAL_BYTES,
    REPLACE_MARK,
    SEARCH_MARK,
    apply_edit,
    check_source,
    parse_blocks,
    unified_diff,
)
from harness.errors import EditRefused
from harness.records import Edit

STOCK = '''"""A trainer."""

from trainer import lab

WIDTH = 64
DEPTH = 2


def build_model(task):
    return task, WIDTH, DEPTH


def main():
    run = lab.open()
    run.save(build_model(run.task))


if __name__ == "__main__":
    main()
'''


def with_line(line: str) -> str:
    return STOCK.replace("WIDTH = 64\n", f"WIDTH = 64\n{line}\n")


def refusal(edit: Edit, incumbent: str = STOCK) -> str:
    with pytest.raises(EditRefused) as caught:
        apply_edit(edit, incumbent, STOCK)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


def test_the_stock_file_passes_through_the_door_unchanged():
    assert apply_edit(Edit(source=STOCK), STOCK, STOCK) == STOCK


def test_blocks_apply_in_order_each_to_the_result_of_the_one_before():
    edit = Edit(blocks=(("WIDTH = 64\n", "WIDTH = 96\n"), ("WIDTH = 96\nDEPTH = 2", "WIDTH = 96\nDEPTH = 3")))
    assert apply_edit(edit, STOCK, STOCK) == STOCK.replace("64", "96").replace("DEPTH = 2", "DEPTH = 3")


def test_blocks_apply_to_the_incumbent_not_to_the_stock_file():
    incumbent = STOCK.replace("64", "80")
    assert "WIDTH = 96" in apply_edit(Edit(blocks=(("WIDTH = 80", "WIDTH = 96"),)), incumbent, STOCK)


def test_windows_line_ends_become_newlines_and_a_last_newline_is_added():
    source = apply_edit(Edit(source=STOCK.replace("\n", "\r\n").rstrip()), STOCK, STOCK)
    assert source == STOCK


@pytest.mark.parametrize(
    "path",
    ["lab.py", "./train.py", "../train.py", "/train.py", "a/../train.py", "train.py\n", "TRAIN.PY", "train.py/", ""],
)
def test_only_train_py_may_be_changed(path):
    assert "only train.py" in refusal(Edit(source=STOCK, path=path))


def test_an_edit_is_a_file_or_blocks():
    assert "exactly one" in refusal(Edit())
    assert "exactly one" in refusal(Edit(source=STOCK, blocks=(("WIDTH", "W"),)))


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("HEIGHT = 3\nWIDTH = 64", "search block 2 ('HEIGHT = 3') matches 0 times"),
        ("WIDTH", "search block 2 ('WIDTH') matches 2 times"),
        ("  \n", "search block 2 is empty"),
    ],
)
def test_a_search_block_must_match_exactly_once(search, expected):
    assert expected in refusal(Edit(blocks=(("DEPTH = 2", "DEPTH = 3"), (search, "x"))))


def test_overlapping_matches_count_as_several():
    incumbent = with_line("# aaa")
    assert "matches 2 times" in refusal(Edit(blocks=(("aa", "b"),)), incumbent)


@pytest.mark.parametrize(
    "character", ["\0", "\r", "\x0c", "\x1b", "\x7f", "\x85", "\u202e", "\u200b", "\ud800", "\u2028", "\ufeff"]
)
def test_invisible_characters_are_named_with_their_line(character):
    message = refusal(Edit(source=with_line(f"# a{character}b")))
    assert message.startswith(f"line 6: character U+{ord(character):04X}")


def test_other_scripts_are_welcome():
    source = with_line("# größer, 更大, naïve: β ≤ δ")
    assert apply_edit(Edit(source=source), STOCK, STOCK) == source


def test_the_size_limit_is_the_stock_file_and_32_kib_to_the_byte():
    room = MAX_GROWTH_BYTES - len("# ü\n".encode())
    longest = STOCK + "# ü\n" + "#" * (room - 1) + "\n"
    assert apply_edit(Edit(source=longest), STOCK, STOCK) == longest
    assert "the limit is" in refusal(Edit(source=longest + "#\n"))


HALF = MAX_LITERAL_BYTES // 2 + 1


@pytest.mark.parametrize(
    "expression",
    [
        f"'{'a' * 2049}'",
        f"b'{'a' * 2049}'",
        f"'{'ü' * 1025}'",
        f"0x{'f' * 4098}",
        f"'{'a' * HALF}' '{'b' * HALF}'",
        f"'{'a' * HALF}' + '{'b' * HALF}'",
        f"f'{'a' * HALF}{{WIDTH}}{'b' * HALF}'",
        f"f'{{WIDTH:{'a' * 2049}}}'",
        f"['{'a' * HALF}', f(WIDTH), '{'b' * HALF}']",
        f"{{1: '{'a' * HALF}', 2: ('{'b' * HALF}',)}}",
        f"[{'0.5, ' * 257}]",
        f"(lambda: '{'a' * 2049}')()",
        f"'%s{'a' * HALF}' % '{'b' * HALF}'",
    ],
)
def test_literals_above_2_kib_are_refused_however_they_are_put_together(expression):
    assert f"the limit is {MAX_LITERAL_BYTES}" in refusal(Edit(source=with_line(f"X = {expression}")))


@pytest.mark.parametrize(
    "expression",
    [
        f"'{'a' * 2048}'",
        f"0x{'f' * 4096}",
        f"['{'a' * 1024}', '{'b' * 1024}']",
        f"f('{'a' * HALF}'), g('{'b' * HALF}')",
    ],
)
def test_literals_up_to_2_kib_pass(expression):
    check_source(with_line(f"X = {expression}"), STOCK)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (with_line("x = = 1"), "line 6: syntax error"),
        (with_line("return 3"), "line 6: syntax error: 'return' outside function"),
        (with_line("x = " + "-" * 30_000 + "1"), "nest less deeply"),
        (with_line("x = " + "1+" * 10_000 + "1"), "nest less deeply"),
        (STOCK.replace("def build_model", "def make_model"), "define `def build_model(task)`"),
        (
            STOCK.replace("def build_model(task):\n", "class A:\n  def build_model(task):\n  "),
            "define `def build_model",
        ),
        (STOCK.replace('if __name__ == "__main__":', "if True:"), "__main__"),
        (STOCK.replace("from trainer import lab", "import os"), "import lab"),
    ],
)
def test_what_does_not_parse_or_breaks_the_contract_is_refused(source, expected):
    assert expected in refusal(Edit(source=source))


def test_nothing_of_an_edit_is_executed(tmp_path):
    trace = tmp_path / "trace"
    check_source(with_line(f"open({str(trace)!r}, 'w').write('ran')"), STOCK)
    assert not trace.exists()


@given(st.text())
def test_any_text_is_accepted_as_valid_python_or_refused_in_one_line(text):
    try:
        source = apply_edit(Edit(source=text), STOCK, STOCK)
    except EditRefused as error:
        assert "\n" not in str(error)
        str(error).encode()
    else:
        ast.parse(source)


@given(st.text(alphabet="ab\n", min_size=1, max_size=6), st.text(alphabet="xy\n", max_size=6))
def test_a_block_applies_exactly_where_its_search_text_occurs_once(search, replace):
    incumbent = with_line("# abba\n# ab")
    starts = [at for at in range(len(incumbent)) if incumbent.startswith(search, at)]
    if len(starts) == 1 and search.strip():
        expected = incumbent[: starts[0]] + replace + incumbent[starts[0] + len(search) :]
        try:
            assert apply_edit(Edit(blocks=((search, replace),)), incumbent, STOCK) == expected
        except EditRefused as error:
            assert "search block" not in str(error)
    else:
        assert "search block 1" in refusal(Edit(blocks=((search, replace),)), incumbent)


LINES = st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n<>="), max_size=12), max_size=5)


@given(LINES, st.lists(st.tuples(LINES, LINES), max_size=4))
def test_blocks_survive_being_written_and_read(preamble, pairs):
    def joined(lines: list[str]) -> str:
        return "".join(f"{line}\n" for line in lines)

    blocks = tuple((joined(search), joined(replace)) for search, replace in pairs)
    text = joined(preamble)
    for search, replace in blocks:
        text += f"{SEARCH_MARK}\n{search}{DIVIDER_MARK}\n{replace}{REPLACE_MARK}\n\nand then\n"
    read_preamble, read = parse_blocks(text)
    assert read == blocks
    assert read_preamble.rstrip("\n") == joined(preamble).rstrip("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{SEARCH_MARK}\na\n{REPLACE_MARK}\n", "line 3 of the blocks: expected '======='"),
        (f"{SEARCH_MARK}\na\n{DIVIDER_MARK}\nb\n", "'>>>>>>> REPLACE' is missing"),
        (f"{REPLACE_MARK}\n", "line 1 of the blocks: expected '<<<<<<< SEARCH'"),
        (f"{SEARCH_MARK}\n{SEARCH_MARK}\n", "line 2 of the blocks"),
    ],
)
def test_malformed_blocks_are_refused_with_the_place(text, expected):
    with pytest.raises(EditRefused, match=r"^[^\n]*$") as caught:
        parse_blocks(text)
    assert expected in str(caught.value)


def test_the_diff_is_empty_for_equal_files_and_shows_the_changed_line():
    assert unified_diff(STOCK, STOCK) == ""
    diff = unified_diff(STOCK, STOCK.replace("64", "96"))
    assert diff.startswith("--- a/train.py\n+++ b/train.py\n@@ ")
    assert "\n-WIDTH = 64\n+WIDTH = 96\n" in diff
