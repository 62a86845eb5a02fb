"""Downloads over HTTP that survive dropped connections, busy servers and being killed."""

from __future__ import annotations

import email.message
import email.utils
import http.client
import random
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from trainer.data.source import DataError

MAX_ATTEMPTS = 8  # in a row without a single new byte
_MAX_WAIT_SECONDS = 60.0
_MAX_ASKED_SECONDS = 330.0  # the hub counts requests over five minutes
_WINDOW = re.compile(r";\s*t=(\d{1,4})")  # in RateLimit: seconds until it counts from 0 again
_TIMEOUT_SECONDS = 60.0
_BLOCK_BYTES = 1 << 20
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_HINTS = {
    401: "check the name in data.options.repo, and set HF_TOKEN to a token that may read it, or unset a wrong one",
    403: "set HF_TOKEN to a token that may read it, and accept the data set's terms on its page",
    404: "check repo, revision and shards in data.options",
}

# Python from python.org brings no certificates to a Mac.
_CERTIFICATES = (
    "this Python trusts nobody who signs for that server: on a Mac run 'Install Certificates.command' in Python's "
    "folder, elsewhere set SSL_CERT_FILE"
)

OnBytes = Callable[[int, int | None], None]  # bytes on disk, bytes in all


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and gives the token to its own host only.

    `sha256`: of what lies behind one, as Hugging Face's hub says when it points to its store.
    """

    sha256: str | None = None

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        linked = (headers.get("X-Linked-Etag") or "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", linked):
            self.sha256 = linked
        token = req.unredirected_hdrs.get("Authorization")
        if new is not None and token and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
            new.add_unredirected_header("Authorization", token)
        return new


def download(
    url: str, target: Path, token: str | None, on_bytes: OnBytes, sleep: Callable[[float], None] = time.sleep
) -> str | None:
    """Fetch `url` into `target`, going on where `target.part` ends. Returns the SHA-256 that the server tells, if any.

    Raises:
        DataError: the server refuses, or MAX_ATTEMPTS in a row brought nothing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    redirect = _Redirect()
    opener = urllib.request.build_opener(redirect)
    attempt = 0
    while True:
        before = _size(part)
        try:
            if _fetch_rest(opener, url, part, token, on_bytes):
                part.replace(target)
                return redirect.sha256
            problem, wait = "the connection broke off", None
        except urllib.error.HTTPError as error:
            problem, wait = f"HTTP {error.code}", _retry_after(error.headers)
            if error.code not in _BUSY:
                raise DataError(f"{url}: {problem}: {_HINTS.get(error.code, 'the server refuses')}") from None
        except _BROKEN as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise DataError(f"{url}: {cause}: {_CERTIFICATES}") from None
            problem, wait = str(error) or type(error).__name__, None
        attempt = 0 if _size(part) > before else attempt + 1
        if attempt >= MAX_ATTEMPTS:
            raise DataError(
                f"{url}: {problem}, {attempt} times in a row: check the network, run again to go on from here"
            )
        backoff = 2.0**attempt * random.uniform(0.5, 1.0)
        sleep(min(backoff, _MAX_WAIT_SECONDS) if wait is None else min(wait, _MAX_ASKED_SECONDS))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_rest(
    opener: urllib.request.OpenerDirector, url: str, part: Path, token: str | None, on_bytes: OnBytes
) -> bool:
    """One request for what `part` still lacks. True: complete; False: the connection ended early."""
    tag_file = part.with_name(f"{part.name}.etag")
    have = _size(part)
    tag = tag_file.read_text(encoding="utf-8") if have and tag_file.exists() else ""
    headers = {"Range": f"bytes={have}-", "If-Range": tag} if have and tag else {}
    request = urllib.request.Request(url, headers={"User-Agent": "bpbench", "Accept-Encoding": "identity", **headers})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        response = opener.open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":  # killed after the last byte
            tag_file.unlink()
            return True
        part.unlink()  # longer than the file: it is another file now
        return False
    with response:
        resumed = response.status == 206
        new_tag = response.headers.get("ETag") or ""
        tag_file.write_text("" if new_tag.startswith("W/") else new_tag, encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = int(length) + have * resumed if length is not None else None
        with part.open("ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                on_bytes(file.tell(), total)
    complete = total is None or _size(part) == total
    if complete:
        tag_file.unlink()
    return complete


def _retry_after(headers: email.message.Message) -> float | None:
    """Seconds that the server asks to wait: Retry-After, number or date (RFC 9110, 10.2.3), or the hub's RateLimit."""
    value = headers.get("Retry-After")
    if value is None:
        window = _WINDOW.search(headers.get("RateLimit") or "")
        return float(window.group(1)) if window else None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
