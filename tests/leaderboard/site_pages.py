"""A page as a browser sees it: what tests of the site ask of every one."""

from __future__ import annotations

import posixpath
import re
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import parse_qsl, unquote, urlsplit

VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Tags with their attributes, in order, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for found, attributes in self.tags if found == tag]


def parsed(files: dict[str, bytes]) -> dict[str, Page]:
    return {path: Page(content.decode()) for path, content in files.items() if path.endswith(".html")}


def broken(pages: dict[str, Page], files: dict[str, bytes]) -> list[str]:
    """What is wrong with the links, ids, headings and policies of a site; nothing, one hopes."""
    found = []
    for path, page in pages.items():
        ids = page.values("id")
        found += [f"{path}: id {name} twice" for name in ids if ids.count(name) > 1]
        for attribute in ("aria-labelledby", "aria-describedby"):
            wanted = {name for value in page.values(attribute) for name in value.split()}
            found += [f"{path}: {attribute} {name} is nowhere" for name in wanted - set(ids)]
        found += [f"{path}: tag <{tag}> stays open" for tag in page.open]
        for tag, attributes in page.tags:
            found += [f"{path}: <{tag} {name}>" for name in attributes if name == "style" or name.startswith("on")]
            for name in ("href", "src"):
                if name in attributes:
                    found += [f"{path}: {problem}" for problem in _target(path, attributes, name, pages, files)]
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        if levels[:1] != [1] or levels.count(1) != 1 or any(b > a + 1 for a, b in pairwise(levels)):
            found.append(f"{path}: headings {levels}")
    return found


def _target(
    path: str, attributes: dict[str, str], name: str, pages: dict[str, Page], files: dict[str, bytes]
) -> list[str]:
    target = attributes[name]
    if target.startswith("https://"):
        return [] if "noopener" in attributes.get("rel", "") else [f"{target} without rel"]
    if target.startswith("data:image/svg+xml"):
        return []
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or target.startswith("/"):
        return [f"{target} leads away"]
    place = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(parts.path))) if parts.path else path
    if place not in files:
        return [f"{target} is no file"]
    if "=" in parts.fragment:  # a choice of filters, which board.js reads
        wanted = dict(parse_qsl(parts.fragment))
        return [] if wanted.keys() <= set(pages[place].values("name")) else [f"{target} is no choice"]
    return [f"{target} is no place"] if parts.fragment and parts.fragment not in pages[place].values("id") else []


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def mixed(ink: str, paper: str, opacity: float) -> str:
    """What `ink` at this opacity looks like on `paper`, as #rrggbb."""
    pairs = [(int(ink[at : at + 2], 16), int(paper[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(opacity * front + (1 - opacity) * back):02x}" for front, back in pairs)
