from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import knobs
from harness.errors import ConfigError

SOURCE = '''"""Größe: not ASCII, so that columns in bytes and in characters differ."""

LAYERS = 4  # blocks; search: int(1, 8)
WIDTH: int = 128  # größer; search: int(64, 256, 32)
MATRIX_LR = 0.02  # Muon's # step size; search: log(0.002, 0.2)
DECAY = -0.1   # search: float(-0.5, 0.5)
ACT = "relu2"  # search: choice("relu2", "gelu")
TIED = True  # search: choice(True, False)
EPS = 1e-8  # no range, so no knob
PAIR = (1, 2)  # not a scalar
lower = 3  # search: int(1, 5)


def f():
    LOCAL = 3  # search: int(1, 5)
    return LOCAL
'''


def test_the_knobs_are_the_constants_with_a_range():
    found = knobs.parse(SOURCE)
    assert list(found) == ["LAYERS", "WIDTH", "MATRIX_LR", "DECAY", "ACT", "TIED"]
    assert found["WIDTH"] == knobs.Knob("WIDTH", 128, "int", 4, low=64, high=256, step=32)
    assert found["MATRIX_LR"] == knobs.Knob("MATRIX_LR", 0.02, "log", 5, low=0.002, high=0.2)
    assert found["DECAY"].value == -0.1
    assert found["ACT"].choices == ("relu2", "gelu")


def test_apply_changes_the_literals_and_nothing_else():
    changed = knobs.apply(SOURCE, {"WIDTH": 256, "DECAY": 0.25, "ACT": "gelu", "TIED": False, "EPS": 1e-6})
    expected = SOURCE.replace("WIDTH: int = 128", "WIDTH: int = 256").replace("DECAY = -0.1 ", "DECAY = 0.25 ")
    expected = expected.replace('ACT = "relu2" ', "ACT = 'gelu' ").replace("TIED = True", "TIED = False")
    assert changed == expected.replace("1e-8", "1e-06")


def test_no_values_leave_the_source_untouched():
    assert knobs.apply(SOURCE, {}) == SOURCE


@given(
    st.integers(1, 8),
    st.integers(2, 8).map(lambda n: 32 * n),
    st.floats(0.002, 0.2),
    st.floats(-0.5, 0.5),
    st.sampled_from(["relu2", "gelu"]),
)
def test_what_is_applied_is_what_is_parsed(layers, width, matrix_lr, decay, act):
    values = {"LAYERS": layers, "WIDTH": width, "MATRIX_LR": matrix_lr, "DECAY": decay, "ACT": act}
    found = knobs.parse(knobs.apply(SOURCE, values))
    assert {name: found[name].value for name in values} == values


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"DEPTH": 3}, "no constant DEPTH"),
        ({"LAYERS": 9}, "LAYERS = 9 is outside its search range int(1, 8)"),
        ({"WIDTH": 100}, "WIDTH = 100 is outside its search range int(64, 256, 32)"),
        ({"LAYERS": 2.0}, "LAYERS must be of type int"),
        ({"LAYERS": True}, "LAYERS must be of type int"),
        ({"ACT": "tanh"}, "ACT = 'tanh' is outside"),
        ({"MATRIX_LR": "x"}, "MATRIX_LR must be of type float"),
        ({"EPS": math.nan}, "EPS must be of type float"),
    ],
)
def test_a_wrong_value_names_the_constant(values, expected):
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        knobs.apply(SOURCE, values)
    assert expected in str(caught.value)


def test_an_integer_is_written_as_a_float_where_the_constant_is_one():
    assert "EPS = 1.0 " in knobs.apply(SOURCE, {"EPS": 1})


@pytest.mark.parametrize(
    "line",
    [
        "A = 3  # search: int(1)",
        "A = 3  # search: int(1, 5, 2, 2)",
        "A = 3  # search: int(1, 5.5)",
        "A = 3  # search: int(5, 1)",
        "A = 3  # search: log(0, 5)",
        "A = 3  # search: float(1, 1e999)",
        "A = 3  # search: uniform(1, 5)",
        "A = 3  # search: int(1, open('x'))",
        "A = 3  # search: int(1, 5",
        "A = 3  # search: choice(3)",
        "A = 9  # search: int(1, 5)",
        "A = 4  # search: int(1, 5, 2)",
        "A = 'x'  # search: int(1, 5)",
        "A = 1\nA = 2",
    ],
)
def test_an_unreadable_range_names_the_knob(line):
    with pytest.raises(ConfigError, match=r"^[^\n]*\bA\b[^\n]*$"):
        knobs.parse(line)


def test_text_that_looks_like_a_range_outside_a_comment_is_none():
    assert knobs.parse('A = "# search: int(1, 5)"\nB = 1\n') == {}


def test_the_stock_source_has_the_tasks_values(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SOURCE)
    assert knobs.parse(knobs.stock_source(path, {"LAYERS": 2}))["LAYERS"].value == 2
    with pytest.raises(ConfigError, match="cannot read the stock script"):
        knobs.stock_source(tmp_path / "none.py", {})


def test_a_task_sets_ranges_with_the_values_that_need_them():
    source = "LAYERS = 1  # blocks; search: int(1, 8)\nRATE = 0.1  # search: log(0.01, 1)\n"
    larger = knobs.apply(knobs.set_ranges(source, {"LAYERS": "int(4, 16)"}, {"LAYERS": 12}), {"LAYERS": 12})
    assert larger == "LAYERS = 12  # blocks; search: int(4, 16)\nRATE = 0.1  # search: log(0.01, 1)\n"
    assert knobs.set_ranges(source, {}, {"LAYERS": 12}) == source


@pytest.mark.parametrize(
    ("ranges", "values", "words"),
    [
        ({"WIDTH": "int(1, 2)"}, {}, "no knob WIDTH; it has LAYERS"),
        ({"LAYERS": "int(4, 16)"}, {}, r"LAYERS = 1 is outside its search range int\(4, 16\)"),
        ({"LAYERS": "about(4)"}, {"LAYERS": 4}, "LAYERS: cannot read the range"),
        ({"LAYERS": "int(4, 16)"}, {"LAYERS": 4.5}, "LAYERS must be of type int"),
    ],
)
def test_a_range_that_does_not_fit_is_refused(ranges, values, words):
    with pytest.raises(ConfigError, match=words):
        knobs.set_ranges("LAYERS = 1  # blocks; search: int(1, 8)\n", ranges, values)
