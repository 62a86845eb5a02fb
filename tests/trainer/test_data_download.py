"""The hf source and its downloads, against a loopback server that behaves badly on purpose."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.data.download import MAX_ATTEMPTS, download
from trainer.data.hf import open_source
from trainer.data.prepare import prepare
from trainer.data.source import DataError

SHARD = "data/shard_00000.parquet"
URL_PATH = f"/datasets/someone/texts/resolve/main/{SHARD}"


def quiet(stage: str, done: int, total: int | None, unit: str) -> None:
    pass


def shard(seed: int, rows: int = 400, column: str = "text") -> bytes:
    rng = random.Random(seed)
    texts = [" ".join(f"word{rng.randrange(900)}" for _ in range(60)) for _ in range(rows)]
    buffer = io.BytesIO()
    pq.write_table(pa.table({column: texts}), buffer, compression="none")
    return buffer.getvalue()


class Hub:
    """Serves `files` by path. `plan` holds what to do with the coming requests, one entry each; then it behaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.plan: list[Any] = []
        self.requests: list[dict[str, str]] = []
        self.etags = True
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                hub.requests.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
                hub.answer(self, hub.plan.pop(0) if hub.plan else "serve")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, action: Any) -> None:
        content = self.files.get(handler.path)
        if isinstance(action, tuple):
            status, headers = action
            self.head(handler, status, {**headers, "Content-Length": "0"})
        elif content is None:
            self.head(handler, 404, {"Content-Length": "0"})
        elif action == "hang up":
            handler.close_connection = True
        else:
            self.serve(handler, content, half=action == "drop")

    def serve(self, handler: BaseHTTPRequestHandler, content: bytes, half: bool) -> None:
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        asked = handler.headers.get("Range")
        resumes = asked is not None and handler.headers.get("If-Range") == etag
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and resumes else 0
        if first >= len(content):
            self.head(handler, 416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        body = content[first:]
        headers = {"Content-Length": str(len(body))} | ({"ETag": etag} if self.etags else {})
        if resumes:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.head(handler, 206 if resumes else 200, headers)
        handler.wfile.write(body[: len(body) // 2] if half else body)
        handler.close_connection = half

    @staticmethod
    def head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()


@pytest.fixture
def hub() -> Iterator[Hub]:
    served = Hub()
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


def fetch(hub: Hub, target: Path, waits: list[float], token: str | None = None) -> None:
    download(hub.url + URL_PATH, target, token, lambda done, total: None, waits.append)


def test_dropped_connections_are_resumed_where_they_broke(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    hub.files[URL_PATH] = shard(0)
    size = len(hub.files[URL_PATH])
    hub.plan = ["drop", "hang up", "drop"]
    fetch(hub, tmp_path / "a", waits)
    assert (tmp_path / "a").read_bytes() == hub.files[URL_PATH]
    ranges = [request.get("range") for request in hub.requests]
    second = size // 2 + (size - size // 2) // 2
    assert ranges == [None, f"bytes={size // 2}-", f"bytes={size // 2}-", f"bytes={second}-"]
    assert len(waits) == 3 and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_busy_servers_are_waited_for_as_they_ask(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    hub.files[URL_PATH] = shard(0)
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    hub.plan = [(429, {"Retry-After": "7"}), (503, {}), (503, {"Retry-After": past}), (429, {"Retry-After": "9999"})]
    fetch(hub, tmp_path / "a", waits)
    assert waits[0] == 7 and 0.5 <= waits[1] <= 8 and waits[2] == 0 and waits[3] == 330
    assert (tmp_path / "a").read_bytes() == hub.files[URL_PATH]


def test_a_dead_server_ends_in_one_line_and_keeps_what_came(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    hub.files[URL_PATH] = shard(0)
    hub.plan = ["drop"] + [(503, {})] * MAX_ATTEMPTS
    with pytest.raises(DataError, match="HTTP 503, 8 times in a row: check the network, run again"):
        fetch(hub, tmp_path / "a", waits)
    assert not (tmp_path / "a").exists()
    fetch(hub, tmp_path / "a", waits)
    assert hub.requests[-1]["range"] == f"bytes={len(hub.files[URL_PATH]) // 2}-"
    assert (tmp_path / "a").read_bytes() == hub.files[URL_PATH]


def test_a_python_without_certificates_is_told_at_once(tmp_path: Path, waits: list[float]) -> None:
    """As those of python.org on a Mac: nothing that waiting would mend."""
    if (program := shutil.which("openssl")) is None:
        pytest.skip("no openssl to make a certificate that nobody trusts")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub = Hub()
    hub.server.socket = context.wrap_socket(hub.server.socket, server_side=True)
    with pytest.raises(DataError, match=r"CERTIFICATE_VERIFY_FAILED.*Install Certificates\.command"):
        download(f"{hub.url.replace('http', 'https')}/a", tmp_path / "a", None, lambda *_: None, waits.append)
    hub.server.shutdown()
    assert waits == []


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_anew(
    hub: Hub, tmp_path: Path, waits: list[float], etags: bool
) -> None:
    hub.etags = etags
    hub.files[URL_PATH] = shard(0)
    hub.plan = ["drop"] + [(503, {})] * MAX_ATTEMPTS
    with pytest.raises(DataError):
        fetch(hub, tmp_path / "a", waits)
    hub.files[URL_PATH] = shard(1)
    fetch(hub, tmp_path / "a", waits)
    assert (tmp_path / "a").read_bytes() == hub.files[URL_PATH]


def test_killed_after_the_last_byte(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    content = hub.files[URL_PATH] = shard(0)
    (tmp_path / "a.part").write_bytes(content)
    (tmp_path / "a.part.etag").write_text(f'"{hashlib.sha256(content).hexdigest()}"')
    fetch(hub, tmp_path / "a", waits)
    assert (tmp_path / "a").read_bytes() == content and len(hub.requests) == 1 and waits == []


@pytest.mark.parametrize(("status", "hint"), [(404, "check repo"), (401, "HF_TOKEN"), (403, "terms"), (410, "refuses")])
def test_refusals_are_not_retried_and_say_what_to_do(
    hub: Hub, tmp_path: Path, waits: list[float], status: int, hint: str
) -> None:
    hub.plan = [(status, {})]
    with pytest.raises(DataError, match=f"HTTP {status}.*{hint}"):
        fetch(hub, tmp_path / "a", waits)
    assert waits == []


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    other = Hub()
    other.files["/cdn"] = shard(0)
    hub.plan = [(307, {"Location": "/moved"}), (302, {"Location": f"{other.url}/cdn"})]
    fetch(hub, tmp_path / "a", waits, token="secret")
    other.server.shutdown()
    other.server.server_close()
    assert [request["authorization"] for request in hub.requests] == ["Bearer secret"] * 2
    assert [request["path"] for request in other.requests] == ["/cdn"]
    assert "authorization" not in other.requests[0]


def request_for(home: Path, **options: Any) -> dict[str, Any]:
    shards = {"repo": "someone/texts", "shards": [SHARD, "data/shard_00001.parquet"]}
    fractions = {"val": 0.1, "test": 0.1, "decoy": 0.1}
    return {
        "data": {"name": "hub", "source": "hf", "options": {**shards, "fractions": fractions, **options}},
        "task": {"vocab_size": 300, "sequence_length": 32, "num_eval_windows": 8, "num_decoy_tokens": 256},
        "home": str(home),
        "runtime_paths": [],
    }


@pytest.fixture
def two_shards(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.files[URL_PATH] = shard(0)
    hub.files[URL_PATH.replace("00000", "00001")] = shard(1)
    return hub


def test_prepare_from_a_bad_hub(two_shards: Hub, tmp_path: Path) -> None:
    two_shards.plan = ["drop", (429, {"Retry-After": "0"}), (503, {"Retry-After": "0"}), "serve"]
    stages: list[str] = []
    _, meta = prepare(request_for(tmp_path), lambda stage, *_: stages.append(stage))
    assert meta["inputs"] == {
        name: hashlib.sha256(two_shards.files[f"/datasets/someone/texts/resolve/main/{name}"]).hexdigest()
        for name in (SHARD, "data/shard_00001.parquet")
    }
    assert sum(split["num_documents"] for split in meta["splits"].values()) == 800
    assert {"download 1/2", "download 2/2"} <= set(stages)
    assert all(request["authorization"] == "Bearer secret" for request in two_shards.requests)
    num_requests = len(two_shards.requests)
    _, again = prepare(request_for(tmp_path, max_bytes=100_000), quiet)  # another text from the same shards
    assert len(two_shards.requests) == num_requests and list(again["inputs"]) == [SHARD]
    assert again["text_sha256"] != meta["text_sha256"]


def test_downloads_are_kept_when_a_later_shard_is_missing(two_shards: Hub, tmp_path: Path) -> None:
    second = two_shards.files.pop(URL_PATH.replace("00000", "00001"))
    with pytest.raises(DataError, match=r"shard_00001\.parquet: HTTP 404: check repo, revision and shards"):
        prepare(request_for(tmp_path), quiet)
    two_shards.files[URL_PATH.replace("00000", "00001")] = second
    two_shards.requests.clear()
    prepare(request_for(tmp_path), quiet)
    assert [request["path"][-13:] for request in two_shards.requests] == ["00001.parquet"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sha256": {SHARD: "0" * 64}}, "is pinned: run again"),
        ({"text_column": "body"}, "has no column 'body': expected one of text"),
        ({"repo": "texts"}, "data.options.repo='texts': expected owner/name"),
        ({"shards": ["../secret.parquet"]}, "is no path of a .parquet file"),
        ({"max_bytes": "many"}, "data.options.max_bytes='many'"),
    ],
)
def test_bad_options_name_the_value(two_shards: Hub, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(request_for(tmp_path, **options), quiet)
    assert message in str(caught.value)


def test_a_shard_that_is_no_parquet_is_named(two_shards: Hub, tmp_path: Path) -> None:
    two_shards.files[URL_PATH] = b"<html>login</html>"
    with pytest.raises(DataError, match=r"shard_00000\.parquet is no readable parquet file"):
        prepare(request_for(tmp_path), quiet)


def test_the_default_endpoint_needs_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    source = open_source({"repo": "a/b", "shards": ["x.parquet"]}, tmp_path, quiet)
    assert source.identity()["revision"] == "main"
    assert source._endpoint == "https://huggingface.co"


STORE_PATH = "/store/of/the/hub"


def linked(hub: Hub, sha256: str) -> list[Any]:
    """As the hub does it: the first answer leads to a store and tells what lies there."""
    return [(302, {"Location": hub.url + STORE_PATH, "X-Linked-Etag": f'"{sha256}"'})]


@pytest.mark.parametrize("honest", [True, False])
def test_what_arrives_is_what_the_hub_says_that_it_holds(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, honest: bool
) -> None:
    content = shard(0)
    hub.files = {URL_PATH: content, STORE_PATH: content}
    hub.plan = linked(hub, hashlib.sha256(content).hexdigest() if honest else "0" * 64)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "a-token\n")
    source = open_source({"repo": "someone/texts", "shards": [SHARD]}, tmp_path, quiet)
    if honest:
        assert next(source.documents()).text
        assert hub.requests[0]["authorization"] == "Bearer a-token", "without the end of its line"
        return
    with pytest.raises(DataError, match="the hub says 0000"):
        next(source.documents())
    assert not list(tmp_path.rglob("*.parquet")), "nothing wrong stays"


def test_a_full_window_of_requests_is_waited_for(hub: Hub, tmp_path: Path, waits: list[float]) -> None:
    hub.files[URL_PATH] = shard(0)
    full = {"RateLimit": '"resolvers";r=0;t=287'}
    hub.plan = [(429, full), (429, {"RateLimit": '"resolvers";r=0;t=9999'}), (429, {"RateLimit": "nonsense"})]
    fetch(hub, tmp_path / "a", waits)
    assert waits[0] == 287 and waits[1] == 330 and waits[2] <= 60
