"""The named constants at the top of train.py, and the ranges in which classical controls may search them.

A constant is a top-level assignment of a literal to an upper-case name. It is a knob when its trailing comment says so:

    MATRIX_LR = 0.02  # Muon step size; search: log(0.002, 0.2)

The forms are `int(low, high)`, `int(low, high, step)`, `float(low, high)`, `log(low, high)` and `choice(x, y, ...)`,
bounds included. Nothing is executed: values and ranges are read with `ast.literal_eval`.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError

Scalar = int | float | str | bool

_SEARCH = re.compile(r"\bsearch:\s*(.*?)\s*$")
_KINDS = ("int", "float", "log", "choice")


@dataclass(frozen=True)
class Knob:
    """A constant that controls may search. `low`, `high` for int, float and log; `choices` for choice."""

    name: str
    value: Scalar
    kind: str  # int | float | log | choice
    line: int  # from 1
    low: float | None = None
    high: float | None = None
    step: int = 1  # of int
    choices: tuple[Scalar, ...] = ()

    def contains(self, value: Any) -> bool:
        """Whether `value` lies in the search range, with the right type."""
        if self.kind == "choice":
            return any(value == choice and isinstance(value, type(choice)) for choice in self.choices)
        assert self.low is not None and self.high is not None
        number = isinstance(value, int) or (isinstance(value, float) and self.kind != "int")
        if isinstance(value, bool) or not number or not self.low <= value <= self.high:
            return False
        return self.kind != "int" or (value - self.low) % self.step == 0

    @property
    def range_text(self) -> str:
        """The range as the comment writes it."""
        if self.kind == "choice":
            return f"choice({', '.join(map(repr, self.choices))})"
        step = f", {self.step}" if self.step != 1 else ""
        return f"{self.kind}({self.low}, {self.high}{step})"


def stock_source(path: Path, task_knobs: Mapping[str, Any], ranges: Mapping[str, str] | None = None) -> str:
    """The stock train.py at `path` with a task's constants, and its ranges, in place.

    Raises ConfigError, naming the constant.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the stock script {path}: {error.strerror}") from error
    source = apply(set_ranges(source, ranges or {}, task_knobs), task_knobs)
    parse(source)
    return source


def set_ranges(source: str, ranges: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """`source` with the search ranges of the constants in `ranges` replaced: a size of model has ranges of its own.

    `values` says what their constants will be: a range is checked against it rather than against the old value.
    Raises ConfigError for a name that is no knob, a range that cannot be read or does not hold its value.
    """
    knobs = parse(source)
    lines = source.split("\n")
    for name, text in ranges.items():
        if name not in knobs:
            raise ConfigError(f"task.ranges: train.py has no knob {name}; it has {', '.join(knobs)}")
        knob = _knob(name, _as_type_of(name, knobs[name].value, values.get(name, knobs[name].value)), 0, text)
        row = knobs[name].line - 1
        code, comment, _ = lines[row].partition("search:")
        literal = repr(knob.value)
        lines[row] = re.sub(r"= \S+", f"= {literal}", code, count=1) + f"{comment} {text}"
    return "\n".join(lines)


def parse(source: str) -> dict[str, Knob]:
    """The knobs of `source`, in its order. Raises ConfigError for an unreadable range or a value outside it."""
    comments = _comments(source)
    knobs: dict[str, Knob] = {}
    for name, node in _constants(source).items():
        found = _SEARCH.search(comments.get(node.end_lineno or node.lineno, ""))
        if found:
            knobs[name] = _knob(name, ast.literal_eval(node), node.lineno, found.group(1))
    return knobs


def apply(source: str, values: Mapping[str, Any]) -> str:
    """`source` with the literals of the constants in `values` replaced; all else, comments too, stays as it is.

    Raises ConfigError for a name that is no constant, a value of another type or outside the constant's range.
    """
    constants, knobs = _constants(source), parse(source)
    lines = source.encode().split(b"\n")  # ast counts columns in bytes
    for name, wanted in values.items():
        if name not in constants:
            raise ConfigError(f"train.py has no constant {name}; it has {', '.join(constants) or 'none'}")
        node = constants[name]
        value = _as_type_of(name, ast.literal_eval(node), wanted)
        if name in knobs and not knobs[name].contains(value):
            raise ConfigError(f"{name} = {value!r} is outside its search range {knobs[name].range_text}")
        row = node.lineno - 1
        lines[row] = lines[row][: node.col_offset] + repr(value).encode() + lines[row][node.end_col_offset :]
    return b"\n".join(lines).decode()


def _constants(source: str) -> dict[str, ast.expr]:
    """Name -> the literal's node, for each top-level `NAME = literal` on one line."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"train.py cannot be parsed for its knobs: {error}") from error
    constants: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name) and target.id.isupper() and _is_scalar(value) and _on_one_line(value):
            if target.id in constants:
                raise ConfigError(
                    f"train.py assigns {target.id} twice, on lines {constants[target.id].lineno} and {node.lineno}"
                )
            constants[target.id] = value
    return constants


def _is_scalar(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float | str)


def _on_one_line(node: ast.expr) -> bool:
    return node.lineno == node.end_lineno


def _comments(source: str) -> dict[int, str]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        raise ConfigError(f"train.py cannot be read for its knobs: {error}") from error
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def _knob(name: str, value: Scalar, line: int, text: str) -> Knob:
    kind, arguments = _read_range(name, text)
    if kind == "choice":
        knob = Knob(name, value, kind, line, choices=tuple(arguments))
    else:
        step = int(arguments[2]) if len(arguments) == 3 else 1
        knob = Knob(name, value, kind, line, low=arguments[0], high=arguments[1], step=step)
    if not knob.contains(value):
        raise ConfigError(f"{name} = {value!r} is outside its search range {knob.range_text}")
    return knob


def _read_range(name: str, text: str) -> tuple[str, list[Any]]:
    wrong = ConfigError(
        f"{name}: cannot read the range '{text}'; write int(a, b), float(a, b), log(a, b) or choice(x, ...)"
    )
    try:
        call = ast.parse(text, mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.keywords):
            raise wrong
        kind, arguments = call.func.id, [ast.literal_eval(argument) for argument in call.args]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise wrong from error
    if (
        kind == "choice"
        and len(arguments) >= 2
        and all(isinstance(argument, int | float | str) for argument in arguments)
    ):
        return kind, arguments
    if kind not in _KINDS or not 2 <= len(arguments) <= (3 if kind == "int" else 2):
        raise wrong
    wanted = int if kind == "int" else (int, float)
    if any(isinstance(argument, bool) or not isinstance(argument, wanted) for argument in arguments):
        raise wrong
    low, high, step = arguments[0], arguments[1], arguments[2] if len(arguments) == 3 else 1
    if not (math.isfinite(low) and math.isfinite(high) and low < high and step >= 1) or (kind == "log" and low <= 0):
        raise ConfigError(f"{name}: the range '{text}' needs low < high, and above 0 for log")
    return kind, arguments


def _as_type_of(name: str, old: Scalar, value: Any) -> Scalar:
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(old) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{name} must be of type {type(old).__name__}, as {old!r}, not {value!r}")
    return value
