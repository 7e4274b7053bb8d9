"""Pulls that must not be too fast: when they rest, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from app.services.pulls import run as pull_run
from app.services.pulls.progress import LEAD, Throttle
from tests.raw_server import Connection, raw_server

API = "/api/providers/ollama"
NAME = "127.0.0.1:1/library/a:latest"
LAYER = {"status": "pulling a", "digest": "sha256:" + "a" * 64, "total": 10_000}


def test_lead_is_what_came_too_early() -> None:
    throttle = Throttle(0)
    throttle.take("a", 0)
    throttle.take("a", 1000)

    assert throttle.lead(100, 0) == 10
    assert throttle.lead(100, 4) == 6
    assert throttle.lead(50, 4) == 12  # the limit fell meanwhile
    assert throttle.lead(50, 100) == 0


def test_what_was_here_before_costs_nothing_and_what_is_told_twice_counts_once() -> None:
    throttle = Throttle(0)
    throttle.take("cached", 5_000_000)
    throttle.take("a", 300)
    for here in (400, 350, 400):
        throttle.take("a", here)

    assert throttle.lead(100, 0) == 1


def test_slow_times_are_not_made_up_for() -> None:
    throttle = Throttle(0)
    throttle.take("a", 0)
    assert throttle.lead(100, 3600) == 0

    throttle.take("a", 1000)

    assert throttle.lead(100, 3600) == 10


def test_without_a_limit_nothing_is_ever_too_early() -> None:
    throttle = Throttle(0)
    throttle.take("a", 0)
    throttle.take("a", 10**12)

    assert throttle.lead(None, 1) == 0
    assert throttle.lead(100, 1) == 0  # nor is it held against the pull later


@given(factor=st.floats(0.5, 1000), late=st.floats(0, 0.5), leads=st.integers(1, 10))
def test_average_of_a_simulated_pull_is_within_the_limit(factor: float, late: float, leads: int) -> None:
    """Over a link *factor* times too fast, seen every 60 ms; bytes come *late* seconds after hanging up."""
    limit, tick = 1_000_000, 0.06
    link, total = limit * factor, int(leads * LEAD * limit)
    throttle, now, here, requests = Throttle(0), 0.0, 0, 0
    throttle.take("a", here)
    while here < total:
        requests += 1
        while here < total and throttle.lead(limit, now) <= LEAD:
            now, here = now + tick, here + int(link * tick)
            throttle.take("a", here)
        if here < total:
            here += int(link * late)
            now += throttle.lead(limit, now)
            throttle.lead(limit, now)
            throttle.take("a", here)

    assert here <= limit * (now + LEAD) + 2 * link * (late + tick)
    assert requests <= now / LEAD + 1


def test_pull_that_is_too_fast_hangs_up_rests_and_ends(
    client: FlaskClient, point: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(pull_run, "LEAD", 0.1)
    client.put("/api/settings", json={"pulls": {"max_bytes_per_second": 10_000}})
    here = [0]

    def serve(connection: Connection) -> None:
        connection.send_head("application/x-ndjson")
        while here[0] < LAYER["total"]:  # type: ignore[operator]
            connection.send_chunk(json.dumps({**LAYER, "completed": here[0]}).encode() + b"\n")
            here[0] += 2500
            if here[0] % 5000 == 0:
                connection.wait_for_close()
                return
        connection.send_chunk(json.dumps({**LAYER, "completed": 10_000}).encode() + b"\n")
        connection.send_chunk(b'{"status":"success"}\n')
        connection.end()

    with raw_server(serve) as server:
        point(f"{server.url}/v1")
        id = client.post(f"{API}/pull", json={"model": NAME, "background": True}).json["id"]  # type: ignore[index]
        events = client.get(f"{API}/pulls/{id}/events").text

    told = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: ")]
    completed = [each["completed"] for each in told]
    assert told[-1]["success"] is True
    assert told[-1]["attempts"] == 3
    assert completed == sorted(completed)
    assert "asked for again" not in caplog.text  # it was no failure


@pytest.mark.parametrize("limit", [0, -1, 9_999, 1.5, "1M", True])
def test_limit_that_is_none_is_400(client: FlaskClient, limit: object) -> None:
    response = client.put("/api/settings", json={"pulls": {"max_bytes_per_second": limit}})

    assert response.status_code == 400


def test_limit_is_kept_beside_the_window_and_can_be_lifted(client: FlaskClient) -> None:
    client.put("/api/settings", json={"pulls": {"window": {"from": "01:00", "to": "02:00"}}})
    limited: Any = client.put("/api/settings", json={"pulls": {"max_bytes_per_second": 10**6}}).json
    lifted: Any = client.put("/api/settings", json={"pulls": {"max_bytes_per_second": None}}).json

    assert limited["pulls"]["window"] == {"from": "01:00", "to": "02:00"}
    assert limited["pulls"]["max_bytes_per_second"] == 10**6
    assert lifted["pulls"]["max_bytes_per_second"] is None
