"""What the statuses of upstreams and lost connections become."""

from __future__ import annotations

import pytest

from app.errors import (
    InvalidUpstreamKey,
    InvalidUpstreamResponse,
    NotFound,
    RateLimited,
    ServiceError,
    UpstreamBusy,
    UpstreamError,
    UpstreamRejected,
)
from app.upstream.failures import rejection, unreachable


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (302, InvalidUpstreamResponse, "a redirect (HTTP 302)"),
        (400, UpstreamRejected, "Mine refuses the request: no {way}"),
        (401, InvalidUpstreamKey, "Mine refuses the API key."),
        (404, NotFound, "Mine does not have what was asked for: no {way}"),
        (418, UpstreamRejected, "Mine refuses the request: no {way}"),
        (429, RateLimited, "Mine allows no more requests for now: no {way}"),
        (500, UpstreamError, "Mine failed with HTTP 500: no {way}"),
        (503, UpstreamBusy, "Mine cannot take the request now: no {way}"),
        (529, UpstreamBusy, "Mine cannot take the request now: no {way}"),
        (599, UpstreamError, "Mine failed with HTTP 599: no {way}"),
    ],
)
def test_rejection_is_the_error_of_the_status(status: int, kind: type[ServiceError], sentence: str) -> None:
    error = rejection("Mine", status, "no {way}")

    assert type(error) is kind
    assert sentence in error.message


def test_rejection_holds_the_status_and_the_callers_details() -> None:
    error = rejection("Mine", 400, "", details={"model": "m"})

    assert error.message == "Mine refuses the request."
    assert error.details == {"upstream_status": 400, "model": "m"}


@pytest.mark.parametrize(("status", "seconds"), [(429, 7), (503, 7), (400, None), (500, None)])
def test_rejection_tells_when_to_ask_again_where_that_helps(status: int, seconds: int | None) -> None:
    assert rejection("Mine", status, "", retry_after=6.5).retry_after == seconds


@pytest.mark.parametrize(
    ("url", "start_hint", "hint"),
    [
        ("http://127.0.0.1:1", "Run it.", "Run it."),
        ("http://127.0.0.1:1", "", "Start Mine, or set its base_url"),
        ("http://example.com", "Run it.", "Check that Mine runs on 'example.com'"),
    ],
)
def test_refused_connection_tells_how_to_start_what_runs_here(url: str, start_hint: str, hint: str) -> None:
    assert unreachable("Mine", url, ConnectionRefusedError(), start_hint).hint.startswith(hint)
