"""Pages with parts that a command writes: between markers, from data files alone, so that anybody can rebuild them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.files import write_atomically
from harness.views import text

UNMEASURED = "*Not measured yet.*"


def fill(page: Path, sections: Mapping[str, str]) -> Path:
    """Replace what is between `<!-- NAME -->` and `<!-- end NAME -->` for each of `sections`. Raises ConfigError."""
    content = check(page, tuple(sections))
    for name, body in sections.items():
        content = _replaced(content, name, body)
    return write_atomically(page, content)


def check(page: Path, names: Sequence[str]) -> str:
    """The page, if it has the markers of all `names`: said before hours of measuring. Raises ConfigError."""
    try:
        content = page.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--page {page}: cannot be read ({error.strerror}); expected a page with markers") from error
    for name in names:
        if len(_between(name).findall(content)) != 1:
            raise ConfigError(f"--page {page}: expected one '<!-- {name} -->' and one '<!-- end {name} -->' behind it")
    return content


def _replaced(content: str, name: str, body: str) -> str:
    return _between(name).sub(lambda found: f"{found[1]}\n{body.strip()}\n\n{found[2]}", content)


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)


def publish(sections: Mapping[str, str], page: Path | None, say: Callable[[str], None]) -> None:
    """Into the page, or said without one."""
    if page is not None:
        say(f"Page: {fill(page, sections)}")
        return
    for name, body in sections.items():
        say(f"## {name}\n\n{body}\n")


def image(title: str, plot: Path, page: Path | None) -> str:
    """Markdown for `plot`, as seen from `page` (from its own folder without one)."""
    root = page.parent if page else plot.parent
    return f"![{title}]({Path(os.path.relpath(plot.absolute(), root.absolute())).as_posix()})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what stands in its cells is escaped. UNMEASURED without rows."""
    if not rows:
        return UNMEASURED
    lines = [header, ["---"] * len(header), *([cell(item) for item in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(content: str) -> str:
    """One line of untrusted text inside a table."""
    return re.sub(r"([|<>`\[\]\\])", r"\\\1", text.line(content))


def number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    return "-" if value is None else f"{value:{'+' if sign else ''}.{digits}f}"


def interval(value: float | None, low: float | None, high: float | None, digits: int = 4, sign: bool = False) -> str:
    """`1.2345 (1.2 to 1.3)`."""
    if value is None:
        return "-"
    if low is None or high is None:
        return number(value, digits, sign)
    return f"{number(value, digits, sign)} ({number(low, digits, sign)} to {number(high, digits, sign)})"
