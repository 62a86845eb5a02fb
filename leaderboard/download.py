"""Fetches the bundle of an entry from where it lies, as a stranger's server may send it: slowly, endlessly, wrongly.

It is written nowhere under its name before its size and hash are those of the entry. Whoever runs this lets entries
choose which servers are asked: private addresses are not told apart, so run it where there is nothing to be reached.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from harness.errors import ConfigError
from harness.views import text
from leaderboard.entry import Entry

READ_SECONDS = 30.0  # of silence
WHOLE_SECONDS = 300.0
MAX_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_PIECE_BYTES = 1 << 16
HTTPS = ("https",)


def fetch(
    made: Entry,
    target: Path,
    *,
    schemes: tuple[str, ...] = HTTPS,
    clock: Callable[[], float] = time.monotonic,
    whole_seconds: float = WHOLE_SECONDS,
) -> None:
    """Get the bundle of `made` into `target`, whole or not at all.

    Args:
        schemes: what the address, and wherever it is redirected to, may begin with.
        clock: seconds.
        whole_seconds: longer is not waited, whatever the server does.

    Raises ConfigError where it cannot be had, or is not the entry's bundle.
    """
    assert made.url is not None
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            digest = _in_time(lambda: _copy(made, file, schemes, clock, whole_seconds), made, whole_seconds)
        if digest != made.bundle_sha256:
            raise ConfigError(f"what lies at {made.url} has SHA-256 {digest}, not that of the entry")
        temporary.replace(target)
    except (OSError, HTTPException, ValueError) as error:
        why = text.line(str(error) or type(error).__name__, 120)
        raise ConfigError(f"{made.url} cannot be fetched ({why}); mend the address, or try again") from error
    finally:
        temporary.unlink(missing_ok=True)


def _in_time(work: Callable[[], str], made: Entry, whole_seconds: float) -> str:
    """What `work` returns or raises; what is not done in time is left to itself.

    Timeouts of a socket start anew with every byte: names that are looked up, a handshake, a head, or the ends of
    chunks can be dripped for days. A thread that nobody waits for ends with the process.
    """
    done: list[str] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # handed on below, in the thread of the caller
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(whole_seconds)
    if failed:
        raise failed[0]
    if not done:
        raise _too_slow(made, whole_seconds)
    return done[0]


def _copy(
    made: Entry, file: IO[bytes], schemes: tuple[str, ...], clock: Callable[[], float], whole_seconds: float
) -> str:
    """The SHA-256 of what came, at most one byte more than the entry says."""
    url, began = str(made.url), clock()
    digest, left = hashlib.sha256(), made.bundle_bytes
    with _open(url, schemes) as response:
        while piece := response.read1(min(_PIECE_BYTES, left + 1)):
            left -= len(piece)
            if left < 0:
                raise ConfigError(f"what lies at {url} is larger than the {made.bundle_bytes:,} bytes of the entry")
            if clock() - began > whole_seconds:
                raise _too_slow(made, whole_seconds)
            digest.update(piece)
            file.write(piece)
    if left:
        raise ConfigError(f"what lies at {url} is {left:,} bytes shorter than the entry says")
    return digest.hexdigest()


def _open(url: str, schemes: tuple[str, ...]) -> Any:
    """The response at `url`, or where that leads to. Of a redirect only the head is read.

    The library's own handler reads the body of a redirect first, as much as the server likes to send.
    """
    opener = urllib.request.OpenerDirector()
    # Only these: the default opener also reads files and talks FTP.
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    for _ in range(MAX_REDIRECTS + 1):
        _check_scheme(url, schemes)
        request = urllib.request.Request(url, headers={"User-Agent": "bpbench", "Accept-Encoding": "identity"})
        try:
            return opener.open(request, timeout=READ_SECONDS)
        except HTTPError as error:
            moved = error.headers.get("Location") if error.code in _MOVED else None
            error.close()
            if moved is None:
                raise
            url = urljoin(url, moved)
    raise ConfigError(f"{text.line(url, 120)}: more than {MAX_REDIRECTS} redirects; give the address itself")


def _too_slow(made: Entry, whole_seconds: float) -> ConfigError:
    return ConfigError(f"{made.url} sends too slowly: more than {whole_seconds:.0f} s; publish it elsewhere")


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    if urlsplit(url).scheme not in schemes:
        raise ConfigError(f"{text.line(url, 120)}: expected an address that begins with {schemes[0]}://")
