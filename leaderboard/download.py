"""Fetches the bundle of an entry from where it lies, as a stranger's server may send it: slowly, endlessly, wrongly.

It is written nowhere under its name before its size and hash are those of the entry. Whoever runs this lets entries
choose which servers are asked: private addresses are not told apart, so run it where there is nothing to be reached.
"""

from __future__ import annotations

import hashlib
import os
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from harness.errors import ConfigError
from harness.views import text
from leaderboard.entry import Entry

READ_SECONDS = 30.0  # of silence
WHOLE_SECONDS = 900.0
_PIECE_BYTES = 1 << 16
HTTPS = ("https",)


def fetch(
    made: Entry,
    target: Path,
    *,
    schemes: tuple[str, ...] = HTTPS,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Get the bundle of `made` into `target`, whole or not at all.

    Args:
        schemes: what the address, and wherever it is redirected to, may begin with.
        clock: seconds; more than WHOLE_SECONDS are not waited.

    Raises ConfigError where it cannot be had, or is not the entry's bundle.
    """
    assert made.url is not None
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            digest = _copy(made, file, schemes, clock)
        if digest != made.bundle_sha256:
            raise ConfigError(f"what lies at {made.url} has SHA-256 {digest}, not that of the entry")
        temporary.replace(target)
    except (OSError, HTTPException, ValueError) as error:
        why = text.line(str(error) or type(error).__name__, 120)
        raise ConfigError(f"{made.url} cannot be fetched ({why}); mend the address, or try again") from error
    finally:
        temporary.unlink(missing_ok=True)


def _copy(made: Entry, file: IO[bytes], schemes: tuple[str, ...], clock: Callable[[], float]) -> str:
    """The SHA-256 of what came, at most one byte more than the entry says."""
    url, began = str(made.url), clock()
    _check_scheme(url, schemes)
    opener = urllib.request.OpenerDirector()
    # Only these: the default opener also reads files and talks FTP.
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(schemes),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "bpbench", "Accept-Encoding": "identity"})
    digest, left = hashlib.sha256(), made.bundle_bytes
    with opener.open(request, timeout=READ_SECONDS) as response:
        while piece := response.read1(min(_PIECE_BYTES, left + 1)):
            left -= len(piece)
            if left < 0:
                raise ConfigError(f"what lies at {url} is larger than the {made.bundle_bytes:,} bytes of the entry")
            if clock() - began > WHOLE_SECONDS:
                raise ConfigError(f"{url} sends too slowly: more than {WHOLE_SECONDS:.0f} s; publish it elsewhere")
            digest.update(piece)
            file.write(piece)
    if left:
        raise ConfigError(f"what lies at {url} is {left:,} bytes shorter than the entry says")
    return digest.hexdigest()


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, schemes: tuple[str, ...]) -> None:
        self._schemes = schemes

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        _check_scheme(newurl, self._schemes)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    if urlsplit(url).scheme not in schemes:
        raise ConfigError(f"{text.line(url, 120)}: expected an address that begins with {schemes[0]}://")
