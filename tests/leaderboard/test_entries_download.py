"""Bundles from elsewhere: a server that lies, dawdles or leads astray leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import pytest

from harness.errors import ConfigError
from leaderboard.download import WHOLE_SECONDS, fetch
from leaderboard.entry import Entry, Submitter

CONTENT = b"a bundle" * 20_000
HTTP = ("http",)
SENT_ALL: list[str] = []  # the paths whose whole body was taken


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        where = self.path
        if where in ("/endless", "/dripping"):
            self.goes_on(where == "/endless")
            return
        if where.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", where.removeprefix("/to/").replace("HOST", self.headers["Host"]))
            self.end_headers()
            return
        if where == "/round":
            self.send_response(307)
            self.send_header("Location", "/round")
            self.end_headers()
            return
        body = {"/good": CONTENT, "/short": CONTENT[:-1], "/long": CONTENT * 2, "/other": CONTENT[::-1]}.get(where)
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body or b"no")

    def goes_on(self, moved: bool) -> None:
        """A redirect whose body never ends, or a head that never does."""
        self.send_response(302 if moved else 200)
        if moved:
            self.send_header("Location", "/good")
            self.end_headers()
        else:
            self.flush_headers()
        with contextlib.suppress(OSError):
            for _ in range(80):  # of lines, a client takes 100
                self.wfile.write(b"x" * (1 << 20) if moved else b"X-More: 1\r\n")
                if not moved:
                    time.sleep(0.1)
            SENT_ALL.append(self.path)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    thread.join()
    running.server_close()


def made(url: str) -> Entry:
    return Entry(1, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), url, Submitter("Ann", None), "2025-06-15", "")


def test_a_bundle_is_fetched_also_where_it_was_moved(server: str, tmp_path: Path) -> None:
    for number, path in enumerate(("/good", "/to/http://HOST/good")):
        target = tmp_path / "cache" / f"{number}.tar"
        fetch(made(server + path), target, schemes=HTTP)
        assert target.read_bytes() == CONTENT
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/short", "1 bytes shorter"),
        ("/long", "larger than the 160,000 bytes"),
        ("/other", "not that of the entry"),
        ("/missing", "404"),
        ("/to/file:///etc/passwd", "begins with http://"),
        ("/to/ftp://127.0.0.1/a", "begins with http://"),
        ("/to/https://127.0.0.1/a", "begins with http://"),
        ("/to//to//to//nowhere", "cannot be fetched"),
    ],
)
def test_what_is_not_the_bundle_leaves_nothing(server: str, tmp_path: Path, path: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        fetch(made(server + path), tmp_path / "x.tar", schemes=HTTP)
    assert str(caught.value).isprintable()
    assert not any(tmp_path.iterdir())


def test_only_https_is_asked(server: str, tmp_path: Path) -> None:
    for url in (f"{server}/good", "file:///etc/passwd", "data:,x"):
        with pytest.raises(ConfigError, match="begins with https://"):
            fetch(made(url), tmp_path / "x.tar")


def test_who_sends_too_slowly_is_given_up(server: str, tmp_path: Path) -> None:
    ticks = count(0.0, WHOLE_SECONDS)
    with pytest.raises(ConfigError, match="too slowly"):
        fetch(made(f"{server}/good"), tmp_path / "x.tar", schemes=HTTP, clock=lambda: next(ticks))
    assert not any(tmp_path.iterdir())


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be fetched"):
        fetch(made("http://127.0.0.1:1/a"), tmp_path / "x.tar", schemes=HTTP)


def test_the_body_of_a_redirect_is_not_read(server: str, tmp_path: Path) -> None:
    """Or a server could send without end before it says where the bundle is."""
    fetch(made(f"{server}/endless"), tmp_path / "x.tar", schemes=HTTP)
    assert (tmp_path / "x.tar").read_bytes() == CONTENT
    assert "/endless" not in SENT_ALL


def test_a_head_that_comes_line_by_line_does_not_outlast_the_limit(server: str, tmp_path: Path) -> None:
    """No socket is silent for long here: the limit is on the whole."""
    began = time.monotonic()
    with pytest.raises(ConfigError, match="too slowly"):
        fetch(made(f"{server}/dripping"), tmp_path / "x.tar", schemes=HTTP, whole_seconds=0.5)
    assert time.monotonic() - began < 5 and not any(tmp_path.iterdir())


def test_redirects_in_a_circle_end(server: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="more than 5 redirects"):
        fetch(made(f"{server}/round"), tmp_path / "x.tar", schemes=HTTP)
