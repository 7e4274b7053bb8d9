"""The benchmarks: their upstream speaks like Ollama, and a small run goes through. No figure is judged."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks import run
from benchmarks.answers import AnswerError, read_answer, token_times
from benchmarks.load import Answer
from benchmarks.measure import Size
from benchmarks.table import MARKS, tables, write_readme
from benchmarks.target import ROOT, Target
from benchmarks.targets import targets
from benchmarks.wire import text_of

pytestmark = pytest.mark.live

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


MACHINE = {"date": "2026-01-02", "cores": 2, "system": "Linux", "python": "3", "rounds": 3}


def result(name: str, figures: dict[str, list[float]], before: str = "") -> dict[str, Any]:
    """A target of a report, as a run writes it."""
    medians = {
        name: {"median": statistics.median(found), "min": min(found), "max": max(found), "rounds": found}
        for name, found in figures.items()
    }
    named = {"name": name, "kind": "chat", "before": before, "version": ""}
    return {**named, "failures": {}, "figures": medians}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Target]:
    target = next(targets(tmp_path, []))
    target.start()
    yield target
    target.stop()


@pytest.mark.parametrize(
    ("model", "tokens"), [("instant", 200), ("slow:3", 3), ("paced:3", 3), ("long:2000", 2000)]
)
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


SIZE = (
    "--warm-up 0.1 --chats 3 --seconds 0.2 --clients 1 2 --level-seconds 0.1 --streams 1 3 --paced 5 "
    "--long 300 --long-each 200 --pause 0"
)


def test_small_run_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"

    run.main(["--only", "chat", "v1", "--rounds", "2", "--json", str(report), *SIZE.split()])

    upstream, *ours = json.loads(report.read_text())["targets"]
    assert [target["name"] for target in ours] == ["backend_server.py /api/chat", "backend_server.py /v1"]
    for target in ours:
        assert target["failures"] == {}
        assert (target["figures"]["paced_3_lost"]["median"], target["figures"]["paced_3_failed"]["max"]) == (
            0,
            0,
        )
        assert len(target["figures"]["clients_2_rate"]["rounds"]) == 2
        assert set(target["figures"]) == set(upstream["figures"])
    assert "| backend_server.py /v1" in capsys.readouterr().out


def test_run_beside_a_checkout_prints_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkout = tmp_path / "before"
    checkout.mkdir()
    for name in ("app", "backend_server.py", "providers.json"):
        (checkout / name).symlink_to(ROOT / name)
    (checkout / ".venv").symlink_to(sys.prefix)
    flags = ["--only", "chat", "--measure", "chat", "--rounds", "1", "--beside", str(checkout)]

    run.main([*flags, "--json", str(tmp_path / "report.json"), *SIZE.split()])

    printed = capsys.readouterr().out
    assert "backend_server.py /api/chat: times as good as before: backend_server.py /api/chat" in printed


def test_server_of_a_command_is_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    server = f"{sys.executable} -m gunicorn -k gthread --threads 4 -b 127.0.0.1:{{port}} app.wsgi:app"
    flags = ["--only", "--measure", "chat", "--rounds", "1", "--server", server]

    run.main([*flags, "--json", str(report), *SIZE.split()])

    measured = json.loads(report.read_text())["targets"][-1]
    assert measured["figures"]["chat"]["median"] > 0


def test_failed_measure_is_reported_and_ends_no_run(tmp_path: Path, upstream: Target) -> None:
    upstream.chat = "/v1/absent"

    [result] = run.Run([upstream], ["chat"], Size(warm_up=0.1, chats=1), 1).measure(ExitStack())

    assert "404" in result["failures"]["chat"]


def test_readme_gets_the_table(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Name\n\n" + "\n".join(MARKS) + "\n\nMore\n")
    report = {**MACHINE, "targets": [result("upstream", {"chat": [0.1]})]}

    for _ in range(2):  # the second time replaces the first table
        write_readme(report, path)

    text = path.read_text()
    assert text.startswith(f"# Name\n\n{MARKS[0]}\n\nMeasured on 2026-01-02, 2 cores")
    assert text.endswith(f"{MARKS[1]}\n\nMore\n")
    assert text.count("| upstream") == 1


def test_ratio_to_a_checkout_beside_is_that_of_the_rounds() -> None:
    figures = {"clients_2_rate": [10.0, 40.0, 30.0], "chat": [1.0, 2.0, 4.0]}
    before = {"clients_2_rate": [5.0, 10.0, 30.0], "chat": [2.0, 2.0, 2.0]}
    size = {"clients": [2], "streams": []}

    printed = tables(
        {**MACHINE, "size": size, "targets": [result("now", figures), result("then", before, "then")]}
    )

    assert re.search(r"clients_2_rate +\| +10 +\| +30 +\| +2.00 +\| +1.00 +\| +4.00", printed)
    assert re.search(r"chat +\| +2 +\| +2 +\| +1.00 +\| +0.50 +\| +2.00", printed)


def test_busy_machine_and_slow_load_are_said() -> None:
    size = {"clients": [2], "streams": [300]}
    figures = {"clients_2_rate": [900.0], "clients_2_busy": [0.95], "paced_300_late": [0.9]}

    printed = tables({**MACHINE, "size": size, "targets": [result("upstream", figures)]})

    assert "The load makes only 900 chats a second with the upstream alone." in printed
    assert "The machine is too busy for 300 streams: the upstream's own are 0.9 s late." in printed
    assert "The load is the limit of upstream with 2 clients." in printed


def test_times_of_tokens_are_those_of_their_bytes() -> None:
    answer = Answer(parts=[HEAD + b'"t0 "', b'"t1 " "t', b'2 "', b'"t4 "'], times=[0.1, 0.2, 0.3, 0.4])

    assert token_times(answer, 5) == [0.1, 0.2, 0.3, 0.4]


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
    with pytest.raises(AnswerError):
        read_answer(Answer(parts=parts, whole=True))
