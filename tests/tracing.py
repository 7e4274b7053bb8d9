"""Traces the modules of the app that three requests call, and the nested generators that pass their bytes.

``python -m tests.tracing`` prints the traces; the table in CONTRIBUTING.md is made from them. A module counts
when a thread that works for the request calls one of its functions: the thread that serves the request, one
that opens or reads an answer, or the worker that runs a pull. Each request is sent once before it is traced,
so that work that is done only once does not count.
"""

from __future__ import annotations

import inspect
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

from flask.testing import FlaskClient

from app import create_app
from app.config import ROOT, Config

_APP = str(ROOT / "app") + "/"
_WORKERS = ("MainThread", "upstream reader", "Worker")
_DIGEST = "sha256:" + "0" * 64
_TOKENS = ("The", " sky", " scatters")
_turns = threading.Semaphore(1)
"""Lets the upstream send the next part when the client has read the last one, or after 0.2 seconds."""


@dataclass
class Trace:
    """A request: its modules by their first calls, and the generators that passed its last bytes."""

    modules: list[str] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    generators: list[str] = field(default_factory=list)

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        """Record a call; this is a profile function (:func:`sys.setprofile`)."""
        if event == "call":
            self._note_module(frame)
        elif event == "c_call" and getattr(argument, "__name__", "").startswith("recv"):
            self.generators = _generators_above(frame) or self.generators

    def _note_module(self, frame: FrameType) -> None:
        path = frame.f_code.co_filename
        if path.startswith(_APP) and threading.current_thread().name.startswith(_WORKERS):
            module = path.removeprefix(_APP).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            self.functions.add(f"{module}:{frame.f_code.co_name}")
            if module not in self.modules:
                self.modules.append(module)


def _generators_above(frame: FrameType | None) -> list[str]:
    found = []
    while frame is not None:
        code = frame.f_code
        if code.co_flags & inspect.CO_GENERATOR and code.co_filename.startswith(_APP):
            found.append(f"{Path(code.co_filename).stem}.{code.co_name}")
        frame = frame.f_back
    return found


class _Upstream(BaseHTTPRequestHandler):
    """An Ollama with one model, and a registry with another model."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/v2/"):
            layer = {"mediaType": "application/vnd.ollama.image.model", "digest": _DIGEST, "size": 100}
            self._answer({"schemaVersion": 2, "config": {**layer, "size": 2}, "layers": [layer]})
        else:
            model = {"name": "m:latest", "size": 1, "digest": "0" * 64, "capabilities": ["completion"]}
            stamps = {"modified_at": "2026-01-01T00:00:00Z", "expires_at": "2036-01-01T00:00:00Z"}
            self._answer({"models": [{**model, **stamps, "context_length": 4096}], "version": "0.33.0"})

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        if self.path == "/api/pull":
            self._stream("application/x-ndjson", [json.dumps(line) + "\n" for line in _progress()])
        else:
            self._stream("text/event-stream", [f"data: {event}\n\n" for event in _events()])

    def _answer(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, content_type: str, parts: list[str]) -> None:
        self.send_header("Content-Type", content_type)
        self.end_headers()
        for part in (*parts, ""):
            if part:  # the end follows at once, so that the connection is kept for other requests
                _turns.acquire(timeout=0.2)
            self.wfile.write(f"{len(part):x}\r\n{part}\r\n".encode())
            self.wfile.flush()


def _progress() -> list[dict[str, Any]]:
    layer = {"status": "pulling 000000000000", "digest": _DIGEST, "total": 100}
    return [
        {"status": "pulling manifest"},
        {**layer, "completed": 50},
        {**layer, "completed": 100},
        {"status": "success"},
    ]


def _events() -> list[str]:
    deltas = [{"choices": [{"index": 0, "delta": {"content": token}}]} for token in _TOKENS]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}}
    return [*map(json.dumps, (*deltas, end, usage)), "[DONE]"]


def streamed_chat(client: FlaskClient, _: int) -> None:
    """Send a streamed chat."""
    body = {"message": "Why is the sky blue?", "model": "m", "stream": True}
    assert b"event: done" in _read(client, "/api/chat", body)


def background_pull(client: FlaskClient, port: int) -> None:
    """Pull a model in the background; wait until the pull is done."""
    body = {"model": f"127.0.0.1:{port}/library/other", "insecure": True, "background": True}
    pull: Any = client.post("/api/providers/ollama/pull", json=body).json
    pulls = client.application.extensions["services"].pull_store
    over = threading.Event()
    while pulls.get(pull["id"]).status not in {"done", "failed"}:
        over.wait(0.05)
    assert pulls.get(pull["id"]).status == "done"


def v1_chat(client: FlaskClient, _: int) -> None:
    """Send a streamed chat to ``/v1``."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
    assert b"[DONE]" in _read(client, "/v1/chat/completions", body)


def _read(client: FlaskClient, path: str, body: dict[str, Any]) -> bytes:
    """Send *body*; read the stream of the answer part by part, and return it."""
    data = b""
    for part in client.post(path, json=body).response:
        data += part
        _turns.release()
    return data


REQUESTS: dict[str, Callable[[FlaskClient, int], None]] = {
    "a background pull": background_pull,
    "a streamed chat": streamed_chat,
    "a /v1 chat": v1_chat,
}


def trace_all() -> dict[str, Trace]:
    """Return the trace of each request; the upstream is a server on this machine."""
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    found = {name: Trace() for name in REQUESTS}
    current: list[Trace] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        for trace in current:
            trace.note(frame, event, argument)

    threading.setprofile(profile)
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Config(data_dir=Path(folder), enable=("ollama",)))
        client, port = app.test_client(), upstream.server_port
        client.patch("/api/providers/ollama", json={"base_url": f"http://127.0.0.1:{port}/v1"})
        sys.setprofile(profile)
        for name, request in REQUESTS.items():
            request(client, port)
            _wait_for_idle_workers()
            current[:] = [found[name]]
            request(client, port)
            current.clear()
        sys.setprofile(None)
        app.extensions["services"].close()
    upstream.shutdown()
    return found


def _wait_for_idle_workers() -> None:
    """Wait until the workers of pulls wait for work: a pull is done before its worker is."""
    workers = [thread.ident for thread in threading.enumerate() if thread.name == "Worker"]
    pause = threading.Event()
    while any(
        frame.f_code.co_name != "_work" for id, frame in sys._current_frames().items() if id in workers
    ):
        pause.wait(0.005)


def main() -> None:
    """Print the traces as JSON."""
    traces = {
        name: {
            "modules": trace.modules,
            "functions": len(trace.functions),
            "generators": trace.generators,
        }
        for name, trace in trace_all().items()
    }
    sys.stdout.write(json.dumps(traces, indent=1) + "\n")


if __name__ == "__main__":
    main()
