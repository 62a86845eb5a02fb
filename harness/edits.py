"""The one door through which every researcher changes train.py.

An edit is the whole new file or search/replace blocks against the incumbent. Each refusal is one line that the
researcher sees, so it says what to do. Whether the code trains is found out by running it; here is only what can be
read off the text. Sizes are in bytes of UTF-8.
"""

from __future__ import annotations

import ast
import difflib
import io
import tokenize
import unicodedata
import warnings

from harness.errors import EditRefused
from harness.records import Edit

FILE_NAME = "train.py"
MAX_GROWTH_BYTES = 32 * 1024  # over the stock file
MAX_LITERAL_BYTES = 2 * 1024  # room for a table of constants, not for weights or for text that the score is taken on

SEARCH_MARK = "<<<<<<< SEARCH"
DIVIDER_MARK = "======="
REPLACE_MARK = ">>>>>>> REPLACE"

# Cc: control, Cf: invisible formatting (bidirectional text shows a reviewer other code than what runs),
# Cs: lone surrogates, Zl and Zp: separators that only some tools take for line ends.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_PARSE_ERRORS = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_CARRIERS = (
    ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.BinOp, ast.UnaryOp,
    ast.Starred,
)  # fmt: skip


def apply_edit(edit: Edit, incumbent_source: str, stock_source: str) -> str:
    """The train.py that `edit` makes of `incumbent_source`, checked. Raises EditRefused with one line."""
    source = edited(edit, incumbent_source)
    check_source(source, stock_source)
    return source


def edited(edit: Edit, incumbent_source: str) -> str:
    """The text that `edit` makes of `incumbent_source`, unchecked. Raises EditRefused where it cannot be applied."""
    if edit.path != FILE_NAME:
        raise EditRefused(f"only {FILE_NAME} may be changed, not {_quote(edit.path)}", "edit_path")
    if (edit.source is None) == (not edit.blocks):
        raise EditRefused("an edit is either the whole new file or search/replace blocks: give exactly one of them")
    if edit.source is not None:
        source = edit.source.replace("\r\n", "\n")
    else:
        source = _replace_blocks(edit.blocks, incumbent_source)
    return source if source.endswith("\n") else source + "\n"


def check_source(source: str, stock_source: str) -> None:
    """Raises EditRefused where `source` breaks a rule that can be read off its text."""
    _check_characters(source)
    _check_encoding(source)
    size, limit = len(source.encode()), len(stock_source.encode()) + MAX_GROWTH_BYTES
    if size > limit:
        message = f"{FILE_NAME} would have {size} bytes; the limit is {limit}, the stock file and 32 KiB"
        raise EditRefused(message, "edit_size")
    tree = _parse(source)
    _check_literals(tree)
    _check_contract(tree)


def parse_blocks(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The text before the first search/replace block of `text`, and its blocks as (search, replace).

    Each mark is a line of its own; text between blocks is ignored. Raises EditRefused when marks do not alternate.

        <<<<<<< SEARCH
        lines of the incumbent, exactly as they are
        =======
        lines that take their place
        >>>>>>> REPLACE
    """
    marks = (SEARCH_MARK, DIVIDER_MARK, REPLACE_MARK)
    collected: list[list[str]] = [[], [], []]  # before the search mark, search, replace
    preamble: str | None = None
    blocks: list[tuple[str, str]] = []
    place = 0
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        mark = line.rstrip()
        if mark in marks and (place > 0 or mark != DIVIDER_MARK):  # a ruler between blocks is prose
            if mark != marks[place]:
                raise EditRefused(f"line {number} of the blocks: expected '{marks[place]}', found '{mark}'")
            if place == 0 and preamble is None:
                preamble = "\n".join(collected[0])
            if place == 2:
                blocks.append((_join(collected[1]), _join(collected[2])))
                collected = [[], [], []]
            place = (place + 1) % 3
        else:
            collected[place].append(line)
    if place:
        raise EditRefused(f"the last block is not finished: '{marks[place]}' is missing")
    return ("\n".join(collected[0]) if preamble is None else preamble), tuple(blocks)


def unified_diff(old: str, new: str) -> str:
    """The change from `old` to `new` as a unified diff of train.py, empty when they are equal."""
    lines = difflib.unified_diff(old.split("\n"), new.split("\n"), f"a/{FILE_NAME}", f"b/{FILE_NAME}", lineterm="", n=3)
    return "".join(f"{line}\n" for line in lines)


def _replace_blocks(blocks: tuple[tuple[str, str], ...], source: str) -> str:
    if not source.endswith("\n"):
        source += "\n"
    for number, (raw_search, raw_replace) in enumerate(blocks, start=1):
        search, replace = raw_search.replace("\r\n", "\n"), raw_replace.replace("\r\n", "\n")
        if not search.strip():
            raise EditRefused(f"search block {number} is empty: copy the lines to replace")
        at = source.find(search)
        first_line = _quote(search.strip().split("\n")[0].strip())
        if at < 0:
            raise EditRefused(
                f"search block {number} ({first_line}) matches 0 times: copy the lines of the current best exactly"
            )
        if source.find(search, at + 1) >= 0:
            times = _count(source, search)
            raise EditRefused(
                f"search block {number} ({first_line}) matches {times} times: add lines around it until it is unique"
            )
        source = source[:at] + replace + source[at + len(search) :]
    return source


def _count(text: str, part: str) -> int:
    """How often `part` occurs in `text`, overlaps included."""
    count, at = 0, text.find(part)
    while at >= 0:
        count, at = count + 1, text.find(part, at + 1)
    return count


def _check_characters(source: str) -> None:
    for index, character in enumerate(source):
        if character not in "\n\t" and unicodedata.category(character) in _REFUSED_CATEGORIES:
            line = source.count("\n", 0, index) + 1
            message = f"line {line}: character U+{ord(character):04X} is not allowed: use visible text only"
            raise EditRefused(message, "edit_text")


def _check_encoding(source: str) -> None:
    """Python reads a file by the encoding that a comment on its first lines names (PEP 263).

    In another one than UTF-8 the same bytes may be other code than what is checked here and shown to people.
    """
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source.encode()).readline)
    except SyntaxError:
        encoding = "an unknown one"
    if encoding != "utf-8":
        raise EditRefused(f"the first lines name an encoding ({_quote(encoding)}): only UTF-8 is allowed", "edit_text")


def _parse(source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, FILE_NAME, "exec", dont_inherit=True)  # finds what ast.parse lets pass, as a stray return
            return ast.parse(source, FILE_NAME)
    except SyntaxError as error:
        text = _quote((error.text or "").strip())
        raise EditRefused(f"line {error.lineno}: syntax error: {error.msg}, at {text}") from None
    except _PARSE_ERRORS as error:
        raise EditRefused(f"{FILE_NAME} cannot be parsed ({type(error).__name__}): nest less deeply") from None


def _check_literals(tree: ast.Module) -> None:
    """Refuse literals above MAX_LITERAL_BYTES, however they are put together from constants.

    A list of constants, a sum of strings and an f-string's fixed parts are literals of the size of all their parts.
    """
    sizes: dict[int, int] = {}
    for node in reversed(list(ast.walk(tree))):  # children before parents
        if not isinstance(node, _CARRIERS):
            continue
        own = _constant_bytes(node.value) if isinstance(node, ast.Constant) else 0
        size = own + sum(sizes.get(id(child), 0) for child in ast.iter_child_nodes(node))
        if size > MAX_LITERAL_BYTES:
            line = getattr(node, "lineno", "?")
            message = f"line {line}: a literal of {size} bytes; the limit is {MAX_LITERAL_BYTES}: compute it"
            raise EditRefused(message, "edit_size")
        sizes[id(node)] = size


def _constant_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, int):
        return (value.bit_length() + 7) // 8
    return 16 if isinstance(value, complex) else 8


def _check_contract(tree: ast.Module) -> None:
    if not any(isinstance(node, ast.FunctionDef) and node.name == "build_model" for node in tree.body):
        raise EditRefused("the contract: define `def build_model(task)` at the top level")
    if not any(isinstance(node, ast.If) and _is_main_test(node.test) for node in tree.body):
        raise EditRefused('the contract: keep the part under `if __name__ == "__main__":` that trains and saves')
    if not any(_imports_lab(node) for node in ast.walk(tree)):
        raise EditRefused("the contract: import lab, and use lab.open(), run.start() and run.save(model)")


def _is_main_test(test: ast.expr) -> bool:
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return False
    sides = (test.left, test.comparators[0])
    named = any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides)
    return named and any(isinstance(side, ast.Constant) and side.value == "__main__" for side in sides)


def _imports_lab(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[-1] == "lab" for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[-1] == "lab" or any(alias.name == "lab" for alias in node.names)
    return False


def _join(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _quote(text: str) -> str:
    """`text` for a one-line message: hostile, so escaped and cut."""
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return ascii(shown)
