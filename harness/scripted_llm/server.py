"""The scripted model behind HTTP, on loopback: one server speaks all three wire formats, each on its own path."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from harness.scripted_llm.forms import Said
from harness.scripted_llm.script import Script
from harness.scripted_llm.wires import WIRES, Body, Usage, Wire, tokens, usage

MAX_REQUEST_BYTES = 32 << 20
MODEL = "scripted"
_STATUS = {
    "rate_limit": (429, "rate_limit_error", "rate limit reached, try again later"),
    "server_error": (500, "api_error", "internal error"),
    "unreadable_call": (500, "server_error", "The model produced output that does not match the expected format"),
    "overloaded": (529, "overloaded_error", "overloaded"),
    "bad_key": (401, "authentication_error", "invalid api key"),
    "no_such_model": (404, "not_found_error", "the model does not exist"),
    "context_overflow": (400, "context_length_exceeded", "maximum context length is 4096 tokens; prompt is too long"),
}  # fmt: skip
_BROKEN = ("hang", "drop", "truncated_json", "garbage")  # no whole answer goes out
_HANG_SECONDS = 600.0


@dataclass(frozen=True)
class Served:
    """One request, as the server saw it. `usage` is None where no answer went out whole."""

    number: int
    wire: str
    fault: str | None
    usage: Usage | None
    headers: dict[str, str]
    body: Body


class ScriptedServer:
    """Serves a script until closed. `served` is its own account of what it was asked and what it answered."""

    def __init__(self, script: Script, port: int = 0, retry_after_seconds: float = 0.0) -> None:
        self.script = script
        self.retry_after_seconds = retry_after_seconds
        self.served: list[Served] = []
        self.other_paths: list[str] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._num_asked = 0
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.scripted = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def serve_forever(self) -> None:
        """Serve on this thread until interrupted."""
        self._http.serve_forever()

    def next_number(self) -> int:
        with self._lock:
            self._num_asked += 1
            return self._num_asked - 1

    def note(self, served: Served) -> None:
        with self._lock:
            self.served.append(served)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a request that hangs on purpose must not hold up the end
    scripted: ScriptedServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    content_type = "application/json"

    def log_message(self, format: str, *args: Any) -> None:
        """The account is `served`."""

    def do_GET(self) -> None:
        if self.path.startswith("/v1/models"):
            self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif self.path == "/api/tags":
            self._send(200, {"models": [{"name": MODEL, "model": MODEL}]})
        else:
            self._unknown()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_REQUEST_BYTES:
            self.close_connection = True
            self._send(413, {"error": f"{length} bytes; the limit is {MAX_REQUEST_BYTES}"})
            return
        raw = self.rfile.read(length)
        path = self.path.partition("?")[0]
        if path == "/v1/messages/count_tokens":
            self._send(200, {"input_tokens": tokens(raw.decode("utf-8", "replace"))})
            return
        if path == "/api/show":
            self._send(200, {"template": "{{ .Tools }}", "model_info": {"scripted.context_length": 131_072}})
            return
        wire = next((wire for wire in WIRES.values() if wire.path == path), None)
        if wire is None:
            self._unknown()
            return
        try:
            body = json.loads(raw)
            asked = wire.read(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._send(400, wire.error("invalid_request_error", f"cannot read the request: {error!r}"))
            return
        scripted = self.server.scripted
        number = scripted.next_number()
        said = scripted.script.answer(number, asked)
        counted = None if said.fault in _STATUS or said.fault in _BROKEN else usage(body, said)
        scripted.note(Served(number, wire.name, said.fault, counted, dict(self.headers), body))
        self._play(wire, body, said)

    def _play(self, wire: Wire, body: Body, said: Said) -> None:
        """Answer, or fail as the script says."""
        if said.fault in _STATUS:
            status, kind, message = _STATUS[said.fault]
            after = self.server.scripted.retry_after_seconds
            headers = {"Retry-After": f"{after:g}"} if said.fault == "rate_limit" else {}
            self._send(status, wire.error(kind, message), headers)
            return
        answer = wire.write(body, said)
        streamed = wire.stream if body.get("stream") else None
        content = b"".join(streamed(answer)) if streamed else json.dumps(answer).encode()
        self.content_type = "text/event-stream" if streamed else "application/json"
        match said.fault:
            case "hang":
                self._hang()
            case "drop":
                self._send_bytes(200, content[: len(content) // 2], claimed=len(content))
            case "truncated_json":
                self._send_bytes(200, content[: len(content) // 2])
            case "garbage":
                self._send_bytes(200, b"<html><body>Bad gateway, perhaps</body></html>")
            case _:
                self._send_bytes(200, content)
                return
        self.close_connection = True

    def _hang(self) -> None:
        end = time.monotonic() + _HANG_SECONDS
        self.connection.setblocking(False)
        while time.monotonic() < end and not self.server.scripted.closing.wait(0.05):
            try:
                if self.connection.recv(1) == b"":
                    return  # the client gave up
            except BlockingIOError:
                continue
            except OSError:
                return

    def _unknown(self) -> None:
        self.server.scripted.other_paths.append(f"{self.command} {self.path}")
        self._send(404, {"error": f"nothing at {self.path}"})

    def _send(self, status: int, body: Body, headers: dict[str, str] | None = None) -> None:
        self.content_type = "application/json"
        self._send_bytes(status, json.dumps(body).encode(), headers)

    def _send_bytes(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, claimed: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", self.content_type)
        self.send_header("Content-Length", str(len(content) if claimed is None else claimed))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
