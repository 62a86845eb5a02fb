"""The form of an entry: nothing in it but what it must have, and everything of a stranger's capped and clean."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError
from leaderboard import entry
from leaderboard.entry import Entry, Submitter

GOOD = Entry(1, "a" * 64, 1000, None, Submitter("Ann", "https://example.org/ann"), "2025-06-15", "")


def test_an_entry_reads_back_as_it_was_written() -> None:
    assert entry.parse(entry.dump(GOOD), "x.json") == GOOD
    other = replace(GOOD, url="https://example.org/b.tar?x=1", submitted_by=Submitter("Zoë", None), note="a — note")
    assert entry.parse(entry.dump(other), "x.json") == other


def changed(**values: Any) -> bytes:
    return json.dumps({**json.loads(entry.dump(GOOD)), **values}).encode()


WRONG: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "not JSON"),
    "no UTF-8": (b'{"a": "\xff"}', "not JSON"),
    "a list": (b"[]", "expected an object"),
    "deep": (b"[" * 100_000, "not JSON"),
    "derived": (changed(gain_bpb=0.5), "unknown field 'gain_bpb'"),
    "twice": (b'{"format": 1, "format": 1}', "a field is there twice"),
    "missing": (b'{"format": 1}', "is missing"),
    "format": (changed(format=2), "expected 1"),
    "bool": (changed(format=True), "expected int"),
    "hash": (changed(bundle_sha256="A" * 64), "64 hexadecimal digits"),
    "no bytes": (changed(bundle_bytes=0), "expected 1 to"),
    "many bytes": (changed(bundle_bytes=1 << 40), "expected 1 to"),
    "text": (changed(bundle_bytes="1000"), "expected int"),
    "date": (changed(submitted_on="2025-02-30"), "expected a date"),
    "week": (changed(submitted_on="2025-W01-1"), "expected a date"),
    "nobody": (changed(submitted_by={"name": "", "link": None, "account": None}), "say who submits"),
    "long name": (changed(submitted_by={"name": "a" * 61, "link": None, "account": None}), "at most 60"),
    "escape": (changed(note="\x1b[31mred"), "plain characters"),
    "bidi": (changed(note="a\u202eb"), "plain characters"),
    "two lines": (changed(note="a\nb"), "one line"),
    "long note": (changed(note="a" * 501), "at most 500"),
    "account": (
        changed(submitted_by={"name": "Ann", "link": None, "account": "A b"}),
        "expected an account's name",
    ),
    "link": (
        changed(submitted_by={"name": "Ann", "link": "javascript:alert(1)", "account": None}),
        "expected https://",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_clean_line(case: str) -> None:
    content, expected = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        entry.parse(content, "x.json")
    shown = str(caught.value)
    assert expected in shown and shown.startswith("x.json: ") and shown.isprintable()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a",
        "file:///etc/passwd",
        "ftp://example.org/a",
        "https://",
        "https:///a",
        "https://user:key@example.org/a",
        "https://example.org/a b",
        "https://example.org/\u00e9",
        'https://example.org/"onclick=',
        "https://example.org/<script>",
        "https://example.org:99999/",
        "https://[example.org/",
        "HTTPS//example.org",
        "https://example.org/" + "a" * 300,
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    assert not entry.is_https(url)
    with pytest.raises(ConfigError, match="expected https"):
        entry.parse(changed(url=url), "x.json")


def test_names_for_files() -> None:
    assert entry.slug("llm gpt-5/mini (2025)") == "llm-gpt-5-mini-2025"
    assert entry.slug("../../etc/passwd") == "etc-passwd"
    assert entry.slug("\u2603") == entry.slug("") == "x"
    assert len(entry.slug("ab-" * 100)) <= entry.MAX_SLUG and not entry.slug("ab-" * 100).endswith("-")
    assert not any(entry.NAME.fullmatch(name) for name in ("", "-a", "A", "a.b", "a/b", "a" * 101, "a\n"))


def test_only_regular_files_of_bearable_size_are_read(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"12345")
    assert entry.read_capped(plain, 5) == b"12345"
    (tmp_path / "link").symlink_to(plain)
    os.mkfifo(tmp_path / "pipe")
    for name, limit, why in (
        ("plain", 4, "larger than 4 bytes"),
        ("link", 9, "no link"),
        ("pipe", 9, "not a regular file"),
        ("nothing", 9, "No such file"),
        (".", 9, "Is a directory"),
    ):
        with pytest.raises(ConfigError, match=why):
            entry.read_capped(tmp_path / name, limit)
