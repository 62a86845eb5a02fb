"""Untrusted text made fit to be shown: no control, escape or bidirectional characters, a length, nothing lost silently.

Whatever comes from a researcher or its code (hypotheses, notes, reasons, logs, sources) passes here on its way to a
terminal or a page. Escaping for the target's own syntax comes after: `markup` for rich, autoescape for HTML.
"""

from __future__ import annotations

import re
import sys
import unicodedata

MAX_LINE = 300
MAX_BLOCK = 20_000
_MAX_COMBINING = 3  # marks on one letter; more would paint over the lines around it
_MAX_SHOWN = 1e6  # what is larger is shown with three digits and a power of ten
_MAX_SECONDS = 1e9  # some thirty years
# Escape sequences of ECMA-48: control sequences, strings (title, clipboard, link), single shifts. The bounds keep an
# unfinished one from swallowing the text after it.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]{0,512}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]{0,8}[0-~]"
)
_LINE_ENDS = re.compile(r"\r\n|[\r\v\f\x85\u2028\u2029]")


def line(text: str, limit: int = MAX_LINE) -> str:
    """`text` as one clean line of at most `limit` characters, cut at the end with an ellipsis."""
    head = _strip(text[: 8 * limit + 4096])
    joined = " ".join(head.split())
    if len(joined) <= limit and len(text) <= 8 * limit + 4096:
        return joined
    return joined[: limit - 1].rstrip() + "…"


def for_log(words: str) -> str:
    """`words` as no command to who runs a workflow: GitHub obeys `##[...]` wherever it stands in a line."""
    return words.replace("##[", "# #[")


def block(text: str, limit: int = MAX_BLOCK) -> str:
    """`text` as clean lines, at most `limit` characters from its start."""
    head = _strip(text[: 2 * limit])
    if len(head) <= limit and len(text) <= 2 * limit:
        return head
    return head[:limit] + f"\n… cut: {len(text):,} characters in all"


def tail(text: str, limit: int = MAX_BLOCK) -> str:
    """`text` as clean lines, at most `limit` characters up to its end: for logs."""
    end = _strip(text[-2 * limit :])
    if len(end) <= limit and len(text) <= 2 * limit:
        return end
    return f"… cut: {len(text):,} characters in all\n" + end[-limit:]


def markup(text: str, limit: int = MAX_LINE) -> str:
    """One clean line that rich's markup shows literally."""
    from rich.markup import escape  # the command line cleans its words with this module and does without rich

    return escape(line(text, limit))


def _strip(text: str) -> str:
    text = _LINE_ENDS.sub("\n", _ESCAPES.sub("", text)).expandtabs(4)
    kept: list[str] = []
    combining = 0
    for char in text:
        category = unicodedata.category(char)
        combining = combining + 1 if category in ("Mn", "Me") else 0
        # C*: controls, format characters (bidi, zero-width, tags), surrogates, private and unassigned.
        if char == "\n" or (category[0] != "C" and combining <= _MAX_COMBINING):
            kept.append(char)
    return "".join(kept)


def bpb(value: float | None, sign: bool = False) -> str:
    """Four decimals: what the feedback is rounded to."""
    return "-" if value is None else fixed(value, 4, sign)


def sigmas(value: float | None) -> str:
    return "-" if value is None else fixed(value, 1, sign=True)


def fixed(value: float, digits: int, sign: bool = False) -> str:
    """`value` with so many decimals; one that no session can have stays short."""
    plus = "+" if sign else ""
    return f"{value:{plus}.{digits}f}" if abs(value) < _MAX_SHOWN else f"{value:{plus}.3g}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 thread`, `2 threads`; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`; `-` for a time that no session can have."""
    if seconds is None or not abs(seconds) < _MAX_SECONDS:
        return "-"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def say(words: str, limit: int = 4000) -> None:
    """One clean line of ours on stderr."""
    print(for_log(f"bpbench: {line(words, limit)}"), file=sys.stderr, flush=True)
