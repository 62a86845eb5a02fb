"""Frozen records to JSON values and back, strictly: the same fields, the declared types, nothing else.

JSON has no NaN; a diverged loss is a fact worth keeping, so a non-finite float becomes the string "nan", "inf" or
"-inf".
"""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from harness.errors import JournalError

T = TypeVar("T")
_NON_FINITE = ("nan", "inf", "-inf")
LATER = {"later": True}  # metadata of a field that came in after data were published: older records lack it


def to_json(value: Any) -> Any:
    """`value` as JSON: dataclasses become objects with every field, tuples arrays, enums strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json(kind: type[T], value: Any, where: str = "") -> T:
    """Rebuild the dataclass `kind` from what `to_json` made.

    Raises:
        JournalError: a field is missing, unknown, or has the wrong type; the message names it.
    """
    where = where or kind.__name__
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    record: Any = kind
    hints = _hints(record)
    if unknown := sorted(set(value) - set(hints)):
        raise JournalError(f"{where}: unknown field {unknown[0]!r}; expected {', '.join(hints)}")
    if missing := [name for name in hints if name not in value and name not in _later(record)]:
        raise JournalError(f"{where}: field {missing[0]!r} is missing")
    known = {name: hint for name, hint in hints.items() if name in value}
    return kind(**{name: _decode(hint, value[name], f"{where}.{name}") for name, hint in known.items()})


def part_from_json(kind: type[T], value: dict[str, Any]) -> T:
    """The part of `value` that the dataclass `kind` declares; a record may say more than its reader needs.

    Raises:
        JournalError: as `from_json`.
    """
    record: Any = kind  # as in from_json: a type checker does not take a type variable for hashable
    hints = _hints(record)
    return from_json(kind, {name: item for name, item in value.items() if name in hints})


@cache
def _later(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(kind) if LATER.items() <= field.metadata.items())


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _decode_optional(hint, value, where)
    if origin is tuple:
        return _decode_tuple(get_args(hint), value, where)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return value
    return _decode_scalar(hint, value, where)


def _decode_optional(hint: Any, value: Any, where: str) -> Any:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if len(kinds) != 1:
        raise TypeError(f"{where}: only `X | None` unions are supported, not {hint}")
    return None if value is None else _decode(kinds[0], value, where)


def _decode_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(where, "an array", value)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise _wrong(where, f"an array of {len(kinds)}", value)
    return tuple(
        _decode(kind, item, f"{where}[{number}]") for number, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _decode_scalar(hint: Any, value: Any, where: str) -> Any:
    if issubclass(hint, StrEnum):
        if value not in list(hint):
            raise _wrong(where, f"one of {', '.join(hint)}", value)
        return hint(value)
    if hint is float:
        if value in _NON_FINITE and isinstance(value, str):
            return float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(where, "a number", value)
        try:
            return float(value)
        except OverflowError:  # an integer of hundreds of digits
            raise _wrong(where, "a number below 1e308", value) from None
    if type(value) is not hint:
        raise _wrong(where, hint.__name__, value)
    return value


def _wrong(where: str, expected: str, value: Any) -> JournalError:
    return JournalError(f"{where}: expected {expected}, not {str(value)[:60]!r}")
