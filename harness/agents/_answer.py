"""What a model answered, as a move: from a tool call, or from the text form that models without tools use.

Everything here comes from a model: each length has a cap, each type is checked, and what does not fit raises
EditRefused with one line that the model gets back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from harness.edits import DIVIDER_MARK, FILE_NAME, REPLACE_MARK, SEARCH_MARK, parse_blocks
from harness.errors import EditRefused
from harness.records import Edit
from harness.views import text

PROPOSE, STOP, SMOKE, READ, COMPARE = "propose_experiment", "stop", "smoke_run", "read_experiment", "compare_runs"
TOOLS = (PROPOSE, STOP, SMOKE, READ, COMPARE)

MAX_ANSWER_CHARS = 400_000
MAX_HYPOTHESIS_CHARS = 2000
MAX_NOTE_CHARS = 4000
MAX_BLOCKS = 100

_HEADERS = {
    "HYPOTHESIS": PROPOSE, "NOTE": PROPOSE, "STOP": STOP, "SMOKE": SMOKE, "READ": READ, "COMPARE": COMPARE,
}  # fmt: skip
# Of the others the everyday spelling begins many a sentence.
_SPELLINGS = (*_HEADERS, "Hypothesis", "Note")
_HEADER = re.compile(rf"[-#>*\s]*\b({'|'.join(_SPELLINGS)})\**:\**[ \t]*(.*)")
_THOUGHTS, _END_OF_THOUGHTS = "<think>", "</think>"
_FENCE = "```"
# Marks that are off by a sign or by their indentation.
_SEARCH_LIKE = re.compile(r"(\s*)<{5,9}\s*SEARCH\s*")
_DIVIDER_LIKE = re.compile(r"\s*={5,9}\s*")
_REPLACE_LIKE = re.compile(r"\s*>{5,9}\s*REPLACE\s*")
# A call in the words of models whose server does not read it, as many are trained to write it.
_CALL = "<tool_call>"
_WRITTEN_CALL = re.compile(rf"{_CALL}\s*(\{{.*?\}})\s*(?:</tool_call>|\Z)", re.DOTALL)
_RUN = re.compile(r"(?:experiment|exp|run)?\.?\s*#?\s*([0-9]{1,6}|baseline)\b.*")
_RUNS = re.compile(r"\b(?:[0-9]{1,6}|baseline)\b")
NO_EDIT = Edit()


@dataclass(frozen=True)
class Move:
    """One thing that a researcher wants done. `runs` are numbers of experiments, from 1, or "baseline"."""

    action: str
    hypothesis: str = ""
    note: str | None = None
    edit: Edit = NO_EDIT
    reason: str = ""
    runs: tuple[str, ...] = ()


def from_call(name: str, arguments: str | Mapping[str, Any]) -> Move:
    """The move that a tool call makes. Raises EditRefused."""
    given = _arguments(name, arguments)
    match name:
        case "propose_experiment":
            hypothesis = text.line(_string(given, "hypothesis", MAX_ANSWER_CHARS), MAX_HYPOTHESIS_CHARS)
            if not hypothesis:
                raise EditRefused("hypothesis is empty: say what you change, why, and what you expect")
            note = _string(given, "note", MAX_NOTE_CHARS) or None
            return Move(PROPOSE, hypothesis=hypothesis, note=note, edit=_edit(given))
        case "smoke_run":
            return Move(SMOKE, edit=_edit(given))
        case "stop":
            return Move(STOP, reason=text.line(_string(given, "reason", MAX_ANSWER_CHARS), MAX_HYPOTHESIS_CHARS))
        case "read_experiment":
            return Move(READ, runs=(_run(given.get("experiment")),))
        case "compare_runs":
            return Move(COMPARE, runs=(_run(given.get("first")), _run(given.get("second"))))
        case _:
            raise EditRefused(f"there is no tool {ascii(name)[:60]}; the tools are {', '.join(TOOLS)}")


def from_text(answer: str, *, with_tools: bool = False) -> Move:
    """The move that an answer in the text form makes; the form is in prompts/answer_text.md.

    `with_tools`: the model was told of tools instead, which is what it is reminded of. Raises EditRefused.
    """
    if len(answer) > MAX_ANSWER_CHARS:
        raise EditRefused(f"the answer has {len(answer)} characters; the limit is {MAX_ANSWER_CHARS}")
    answer = _tidied(_without_thoughts(answer.replace("\r\n", "\n")))
    _, blocks = parse_blocks(answer)
    prose, fenced = _outside(answer)
    headers = _headers(prose)
    if "HYPOTHESIS" not in headers and not blocks and (call := _written_call(answer, fenced)) is not None:
        return from_call(*call)
    if not headers:
        # All of a short answer may stand in a fence. What looks like a header in code is a comment: it ends no session.
        headers = _headers("\n".join(part for part in fenced if "build_model" not in part))
        headers.pop("STOP", None)
    edit = _edit_of(blocks, fenced)
    actions = {_HEADERS[name] for name in headers}
    if "STOP" in headers and "HYPOTHESIS" not in headers and edit == NO_EDIT:
        return Move(STOP, reason=text.line(headers["STOP"], MAX_HYPOTHESIS_CHARS))
    if "HYPOTHESIS" in headers:
        hypothesis = text.line(headers["HYPOTHESIS"], MAX_HYPOTHESIS_CHARS)
        note = text.block(headers.get("NOTE", ""), MAX_NOTE_CHARS).strip()
        if not hypothesis:
            raise EditRefused("HYPOTHESIS: is empty: say what you change, why, and what you expect")
        return Move(PROPOSE, hypothesis=hypothesis, note=note or None, edit=_some(edit))
    if SMOKE in actions:
        return Move(SMOKE, edit=_some(edit))
    if READ in actions:
        return Move(READ, runs=(_run(_first_line(headers["READ"])),))
    if COMPARE in actions:
        runs = _RUNS.findall(_first_line(headers["COMPARE"]).lower())
        if len(runs) != 2:
            raise EditRefused("COMPARE: takes two runs, such as COMPARE: 3 baseline")
        return Move(COMPARE, runs=(_run(runs[0]), _run(runs[1])))
    if with_tools:
        raise EditRefused(f"found no tool call: call {PROPOSE}")
    raise EditRefused("found no line that begins with HYPOTHESIS: answer in the form that you were given")


def _first_line(words: str) -> str:
    return words.partition("\n")[0]


def _without_thoughts(answer: str) -> str:
    """What follows the thoughts. Some servers send these without the tag that they begin with."""
    head, found, rest = answer.partition(_END_OF_THOUGHTS)
    if not found:
        return answer
    if head.lstrip().startswith(_THOUGHTS) or not rest.strip():
        return rest
    return rest if _headers(rest) or not _headers(head) else answer  # who only quotes the tag has said all before it


def _tidied(answer: str) -> str:
    """Marks as `parse_blocks` wants them: at the margin, with seven signs. A whole block may be indented."""
    lines = answer.split("\n")
    tidied: list[str] = []
    at = 0
    while at < len(lines):
        mark = _SEARCH_LIKE.fullmatch(lines[at])
        if mark is None:
            tidied.append(lines[at])
            at += 1
            continue
        end = next((end for end in range(at + 1, len(lines)) if _REPLACE_LIKE.fullmatch(lines[end])), len(lines))
        tidied += [SEARCH_MARK, *_body(lines[at + 1 : end], mark.group(1))]
        if end < len(lines):
            tidied.append(REPLACE_MARK)
        at = end + 1
    return "\n".join(tidied)


def _body(lines: list[str], indent: str) -> list[str]:
    """What stands between the outer marks of a block that is indented so."""
    if all(line.startswith(indent) for line in lines if line.strip()):
        lines = [line.removeprefix(indent) for line in lines]
    if not any(line.rstrip() == DIVIDER_MARK for line in lines):
        loose = next((place for place, line in enumerate(lines) if _DIVIDER_LIKE.fullmatch(line)), None)
        lines = [DIVIDER_MARK if place == loose else line for place, line in enumerate(lines)]
    return lines


def _written_call(answer: str, fenced: list[str]) -> tuple[str, str | Mapping[str, Any]] | None:
    """Name and arguments of a tool call that was written out as text."""
    found = _WRITTEN_CALL.match(answer, max(0, answer.find(_CALL)))
    for part in [found.group(1)] if found else fenced:
        try:
            given = json.loads(part, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(given, dict) and given.get("name") in TOOLS:
            arguments = given.get("arguments", given.get("parameters"))
            return str(given["name"]), arguments if isinstance(arguments, Mapping | str) else {}
    return None


def _outside(answer: str) -> tuple[str, list[str]]:
    """The lines outside search/replace blocks and fences, and the contents of the fences."""
    prose: list[str] = []
    fences: list[str] = []
    fenced: list[str] | None = None
    in_block = decorated = False
    for line in answer.split("\n"):
        mark = line.rstrip()
        if mark == SEARCH_MARK:
            if fenced is not None:  # a fence around blocks is only decoration, and so will be its end
                prose += fenced
                decorated = True
            in_block, fenced = True, None
        elif in_block:
            in_block = mark != REPLACE_MARK
        elif decorated and fenced is None and mark.strip() == _FENCE:
            decorated = False
        elif fenced is None and mark.lstrip().startswith(_FENCE):
            fenced, decorated = [], False
        elif fenced is not None and mark == _FENCE:
            fences.append("\n".join(fenced) + "\n")
            fenced = None
        elif fenced is not None:
            fenced.append(line)
        elif mark != DIVIDER_MARK:
            prose.append(line)
    if fenced and any(line.strip() for line in fenced):
        fences.append("\n".join(fenced))
    return "\n".join(prose), fences


def _headers(prose: str) -> dict[str, str]:
    """The text after each header, down to the next one; of a header that is given twice, the first."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in prose.split("\n"):
        if match := _HEADER.match(line):
            current = [match.group(2)]
            found.setdefault(match.group(1).upper(), current)
        else:
            current.append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def _edit_of(blocks: tuple[tuple[str, str], ...], fences: list[str]) -> Edit:
    if blocks:
        return Edit(blocks=_counted(blocks))
    whole = [fence for fence in fences if "build_model" in fence]
    if len(whole) > 1:
        raise EditRefused(f"{len(whole)} fenced files in one answer: give the whole file once")
    return Edit(source=whole[0]) if whole else NO_EDIT


def _some(edit: Edit) -> Edit:
    if edit == NO_EDIT:
        raise EditRefused(f"found no edit: give '{SEARCH_MARK}' blocks, or the whole file between ``` lines")
    return edit


def _arguments(name: str, arguments: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(arguments, Mapping):
        given: Any = arguments
    else:
        if len(arguments) > MAX_ANSWER_CHARS:
            raise EditRefused(f"the arguments have {len(arguments)} characters; the limit is {MAX_ANSWER_CHARS}")
        try:
            given = json.loads(arguments or "{}", strict=False)
        except (ValueError, RecursionError) as error:
            raise EditRefused(f"the arguments of {ascii(name)[:60]} are not JSON: {error}") from error
    if not isinstance(given, Mapping):
        raise EditRefused(f"the arguments of {ascii(name)[:60]} must be a JSON object")
    return given


def _string(given: Mapping[str, Any], key: str, limit: int) -> str:
    value = given.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise EditRefused(f"{key} must be a string")
    return text.block(value, limit).strip()


def _edit(given: Mapping[str, Any]) -> Edit:
    source, raw, path = given.get("source"), given.get("blocks"), given.get("path") or FILE_NAME
    if not (source is None or isinstance(source, str)) or not isinstance(path, str):
        raise EditRefused("source must be a string, the whole new train.py")
    blocks = _blocks(raw) if raw else ()
    if source and len(source) > MAX_ANSWER_CHARS:
        raise EditRefused(f"source has {len(source)} characters; the limit is {MAX_ANSWER_CHARS}")
    if path.removeprefix("./") in (FILE_NAME, f"trainer/{FILE_NAME}"):  # nobody asked for it, and it means this file
        path = FILE_NAME
    return Edit(source=_unfenced(source) if source else None, blocks=blocks, path=path)


def _unfenced(source: str) -> str:
    """A file as it was given, without a fence around it."""
    lines = source.strip().split("\n")
    fenced = len(lines) > 2 and lines[0].startswith(_FENCE) and lines[-1].strip() == _FENCE
    return "\n".join(lines[1:-1]) + "\n" if fenced else source


def _blocks(raw: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(raw, str):  # JSON within JSON
        with suppress(ValueError, RecursionError):
            raw = json.loads(raw, strict=False)
    if isinstance(raw, Mapping):
        raw = [raw]
    if not isinstance(raw, list):
        raise EditRefused("blocks must be a list of objects with the strings search and replace")
    blocks = []
    for number, block in enumerate(raw, start=1):
        pair = (block.get("search"), block.get("replace")) if isinstance(block, Mapping) else (None, None)
        if not (isinstance(pair[0], str) and isinstance(pair[1], str)):
            raise EditRefused(f"block {number} must be an object with the strings search and replace")
        blocks.append((pair[0], _whole_lines(pair[0], pair[1])))
    return _counted(tuple(blocks))


def _whole_lines(search: str, replace: str) -> str:
    """What takes the place of whole lines ends as they do: else the next line would go on where it ends."""
    return f"{replace}\n" if search.endswith("\n") and replace and not replace.endswith("\n") else replace


def _counted(blocks: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    if len(blocks) > MAX_BLOCKS:
        raise EditRefused(f"{len(blocks)} blocks; the limit is {MAX_BLOCKS}: give the whole file instead")
    return blocks


def _run(value: Any) -> str:
    """A run as a model names it: an experiment's number, or "baseline"."""
    name = str(value).strip().lower()[:40] if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if match := _RUN.fullmatch(name):
        return match.group(1)
    raise EditRefused("a run is the number of an experiment, such as 3, or baseline")
