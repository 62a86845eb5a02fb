"""A server that speaks as much of W&B's protocol as a run needs, or misbehaves in a chosen way. Loopback only."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p", "name": "bpbench", "entity": {"id": "e", "name": "me"}}
VIEWER = {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}", "name": "", "admin": False}


class FakeServer(ThreadingHTTPServer):
    """`behaviour`: accept | refuse_all (401) | refuse_history (403) | hang."""

    daemon_threads = True

    def __init__(self, behaviour: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = behaviour
        self.requests: list[str] = []
        self.run: dict[str, Any] = {}  # variables of UpsertBucket, later ones over earlier ones
        self.history: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.asked = threading.Event()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error here."""

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "UpsertBucket" in query:
            self.run |= {name: value for name, value in variables.items() if value is not None}
            bucket = {"id": "x", "name": variables["name"], "displayName": "", "config": "{}", "project": PROJECT}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}
        if "CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/up/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        if "CreateArtifact" in query:
            self.artifacts.append(variables["input"])
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if "ServerFeatures" in query:
            return {"serverInfo": {"features": []}}
        return {"viewer": {**VIEWER, "teams": {"edges": []}}, "project": None}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append(self.path)
        self.server.asked.set()
        status, answer = self._answer(body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_CONNECT = _serve

    def _answer(self, body: bytes) -> tuple[int, dict[str, Any]]:
        behaviour = self.server.behaviour
        if behaviour == "hang":
            self.server.release.wait()
        if behaviour == "refuse_all":
            return 401, {"errors": [{"message": "invalid API key"}]}
        if self.path == "/graphql":
            asked = json.loads(body)
            return 200, {"data": self.server.graphql(asked["query"], asked.get("variables") or {})}
        if self.path.endswith("/file_stream"):
            if behaviour == "refuse_history":
                return 403, {}
            lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
            self.server.history[lines["offset"] :] = [json.loads(line) for line in lines["content"]]
        elif self.path.startswith("/up/"):
            self.server.uploads[self.path.removeprefix("/up/")] = body
        return 200, {}

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving(behaviour: str) -> Iterator[FakeServer]:
    with FakeServer(behaviour) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
