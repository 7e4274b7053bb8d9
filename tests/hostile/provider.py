"""A fake Ollama and OpenAI-compatible provider that repeats what it is told, as fast as a scenario wants."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIGEST = "a" * 64
_MODEL = {
    "name": "tiny:latest",
    "model": "tiny:latest",
    "modified_at": "2026-01-01T00:00:00Z",
    "size": 1000,
    "digest": DIGEST,
    "details": {
        "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "1B", "quantization_level": "Q4_0",
    },
    "capabilities": ["completion", "tools", "vision", "thinking"],
}  # fmt: skip


def echo(message: str) -> str:
    """Return what the provider answers to *message*."""
    return f"You said: {message} and that is all that there is to say"


class Provider:
    """``with Provider() as provider``: the model `tiny` answers with :func:`echo`, one word at a time."""

    def __init__(self) -> None:
        self.delay = 0.0  # seconds between two words, or two lines of a pull
        self.pull_steps = 20
        self.answer: Callable[[str], str] = echo
        provider = self

        class Handler(_Handler):
            owner = provider

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Provider:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients that are killed leave."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Provider

    def do_GET(self) -> None:
        found: dict[str, Any] = {
            "/api/version": {"version": "0.33.0"},
            "/api/tags": {"models": [_MODEL]},
            "/api/ps": {"models": []},
            "/v1/models": {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 1, "owned_by": "x"}]},
        }  # fmt: skip
        self._send(found.get(self.path, "Ollama is running"))

    do_HEAD = do_GET  # noqa: N815  # http.server's name

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            body = {}
        answers = {
            "/v1/chat/completions": self._chat,
            "/api/chat": self._native_chat,
            "/api/generate": self._generate,
            "/api/pull": self._pull,
        }
        if self.path in answers:
            answers[self.path](body)
        elif self.path == "/api/show":
            model_info = {"general.architecture": "llama", "llama.context_length": 4096}
            self._send({**_MODEL, "model_info": model_info, "parameters": "", "template": ""})
        elif self.path in {"/v1/embeddings", "/api/embed"}:
            data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            self._send(
                {"object": "list", "data": data, "model": "tiny", "usage": usage, "embeddings": [[0.1]]}
            )
        elif self.path == "/v1/completions":
            choice = {"index": 0, "text": "so it is", "finish_reason": "stop"}
            self._send(
                {"id": "1", "object": "text_completion", "created": 1, "model": "tiny", "choices": [choice]}
            )
        else:
            self._send({})

    do_DELETE = do_POST  # noqa: N815

    def _words(self, body: dict[str, Any]) -> list[str]:
        said = [str(m.get("content")) for m in body.get("messages", []) if m.get("role") == "user"]
        return [f"{word} " for word in self.owner.answer(said[-1] if said else "").split(" ")]

    def _chat(self, body: dict[str, Any]) -> None:
        words = self._words(body)
        frame = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
        usage = {"prompt_tokens": 3, "completion_tokens": len(words), "total_tokens": 3 + len(words)}
        if not body.get("stream"):
            time.sleep(self.owner.delay * len(words))
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._send({**frame, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        with self._stream("text/event-stream") as send:
            for word in words:
                send(_event({**frame, "choices": [_delta({"role": "assistant", "content": word})]}))
                time.sleep(self.owner.delay)
            send(_event({**frame, "choices": [_delta({}, "stop")]}))
            send(_event({**frame, "choices": [], "usage": usage}))
            send(b"data: [DONE]\n\n")

    def _native_chat(self, body: dict[str, Any]) -> None:
        words = self._words(body)
        frame = {"model": "tiny", "created_at": "2026-01-01T00:00:00Z"}
        with self._stream("application/x-ndjson") as send:
            for word in words:
                send(_line({**frame, "message": {"role": "assistant", "content": word}, "done": False}))
                time.sleep(self.owner.delay)
            last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
            counts = {
                "total_duration": 1,
                "prompt_eval_count": 3,
                "eval_count": len(words),
                "eval_duration": 1,
            }
            send(_line({**frame, **last, **counts}))

    def _generate(self, body: dict[str, Any]) -> None:
        self._send({"model": body.get("model"), "response": "", "done": True, "done_reason": "load"})

    def _pull(self, body: dict[str, Any]) -> None:
        layer = {"status": "pulling aaaaaaaaaaaa", "digest": f"sha256:{DIGEST}", "total": 1_000_000}
        with self._stream("application/x-ndjson") as send:
            send(_line({"status": "pulling manifest"}))
            for step in range(1, self.owner.pull_steps + 1):
                send(_line({**layer, "completed": 1_000_000 * step // self.owner.pull_steps}))
                time.sleep(self.owner.delay)
            for status in ("verifying sha256 digest", "writing manifest", "success"):
                send(_line({"status": status}))

    @contextlib.contextmanager
    def _stream(self, content_type: str) -> Any:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        yield send
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep the output clean."""


def _delta(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"
