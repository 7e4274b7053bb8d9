"""The benchmarks: their upstream speaks like Ollama, and a small run goes through. No figure is judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from benchmarks import run
from benchmarks.load import Answer, LoadError, read_answer
from benchmarks.targets import Target, targets
from benchmarks.wire import text_of

pytestmark = pytest.mark.live

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Target]:
    target = next(targets(tmp_path, []))
    target.start()
    yield target
    target.stop()


@pytest.mark.parametrize(("model", "tokens"), [("instant", 200), ("slow:3", 3), ("long:2000", 2000)])
def test_upstream_streams_an_event_for_each_token(upstream: Target, model: str, tokens: int) -> None:
    url = f"http://127.0.0.1:{upstream.port}/v1/chat/completions"

    with requests.post(url, json={"model": model, "stream": True}, timeout=10) as response:
        lines = [line[6:] for line in response.content.split(b"\n") if line]

    *chunks, usage = map(json.loads, lines[:-1])
    deltas = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert (len(deltas), "".join(deltas)) == (tokens + 1, text_of(tokens))
    assert (usage["usage"]["completion_tokens"], lines[-1]) == (tokens, b"[DONE]")


@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/api/ps", "/api/show", "/v1/models"])
def test_upstream_answers_what_is_asked_beside_chats(upstream: Target, path: str) -> None:
    response = requests.get(f"http://127.0.0.1:{upstream.port}{path}", timeout=10)

    assert response.status_code == 200
    assert isinstance(response.json(), dict)


def test_small_run_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    size = "--chats 3 --seconds 0.2 --clients 2 --long 300 --long-each 200 --streams 3 --slow 3"

    run.main(["--targets", "backend", "--rounds", "1", "--json", str(report), *size.split()])

    upstream, backend = json.loads(report.read_text())["targets"]
    assert (upstream["name"], backend["name"]) == ("upstream", "backend_server.py")
    assert backend["figures"]["failed"] == 0
    assert set(upstream["figures"]) == set(backend["figures"])
    assert "| backend_server.py" in capsys.readouterr().out


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="nothing"),
        pytest.param([b"HTTP/1.1 500 No\r\n\r\n{}"], id="failed"),
        pytest.param([HEAD, b'data: {"content": "t0 "}\n\n'], id="no-end"),
        pytest.param([HEAD, b"event: error\ndata: {}\n\n"], id="error"),
    ],
)
def test_load_takes_no_failure_for_an_answer(parts: list[bytes]) -> None:
    with pytest.raises(LoadError):
        read_answer(Answer(parts=parts, whole=True))
