"""What a process does that is being stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from app.errors import ServerStopping
from app.stopping import stopping
from app.upstream.readiness import Readiness
from tests.raw_server import Connection, raw_server

URL = "http://127.0.0.1:11434"


@pytest.fixture(autouse=True)
def _going_on_afterwards() -> Iterator[None]:
    yield
    stopping.clear()


@pytest.fixture
def stopped(point: Callable[..., None]) -> Iterator[None]:
    """An upstream that answers nothing; this process is told to stop while the upstream is asked."""

    def stop(connection: Connection) -> None:
        stopping.set()
        connection.wait_for_close()

    with raw_server(stop) as upstream:
        point(f"{upstream.url}/v1")
        point(f"{upstream.url}/v1", "openai")
        yield


@pytest.mark.parametrize("path", ["/api/health", "/api/conversations", "/nothing"])
def test_new_request_is_refused(client: FlaskClient, path: str) -> None:
    stopping.set()

    response = client.get(path)

    assert response.status_code == 503
    assert response.get_json()["error_type"] == "server_stopping"
    assert response.headers["Retry-After"] == "5"


def test_new_request_of_openais_api_is_refused_in_its_form(client: FlaskClient) -> None:
    stopping.set()

    response = client.get("/v1/models")

    assert response.status_code == 503
    assert response.get_json()["error"]["code"] == "server_stopping"


@pytest.mark.usefixtures("stopped")
def test_test_of_a_provider_that_is_broken_off_says_nothing_about_the_provider(client: FlaskClient) -> None:
    before = client.get("/api/providers/openai").get_json()

    response = client.post("/api/providers/openai/test")
    stopping.clear()

    assert response.status_code == 503
    assert client.get("/api/providers/openai").get_json() == before


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/providers/ollama/models", None),
        ("POST", "/api/providers/ollama/load", {"model": "x"}),
        ("POST", "/api/providers/ollama/copy", {"source": "x", "destination": "y"}),
        ("POST", "/api/chat", {"message": "Hi", "model": "x"}),
        ("POST", "/api/embeddings", {"input": "Hi", "model": "x"}),
    ],
)
def test_request_that_waits_for_an_upstream_is_broken_off(
    client: FlaskClient, method: str, path: str, body: object
) -> None:
    response = client.open(path, method=method, json=body)

    assert response.status_code == 503
    assert response.get_json()["error_type"] == "server_stopping"


@pytest.mark.usefixtures("stopped")
def test_list_that_is_broken_off_is_no_shorter_list(client: FlaskClient) -> None:
    assert client.get("/v1/models").status_code == 503


def test_fallback_that_is_broken_off_is_not_reported_as_the_first_failure(
    client: FlaskClient, httpserver: HTTPServer, point: Callable[..., None]
) -> None:
    def fail(_: Request) -> Response:
        return Response("{}", 503)

    def stop(connection: Connection) -> None:
        stopping.set()
        connection.wait_for_close()

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(fail)
    point(httpserver.url_for("/v1"))
    with raw_server(stop) as second:
        point(f"{second.url}/v1", "openai")
        body = {"message": "Hi", "model": "x", "fallback_provider": "openai"}

        response = client.post("/api/chat", json=body)

    assert response.status_code == 503
    assert response.get_json()["error_type"] == "server_stopping"


def test_requests_wait_for_a_server_that_is_being_started() -> None:
    readiness = Readiness()
    readiness.starting(URL)
    waited = threading.Event()

    def wait() -> None:
        readiness.wait(URL, 60)
        waited.set()

    threading.Thread(target=wait).start()
    assert not waited.wait(0.01)
    readiness.started()

    assert waited.wait(5)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9999", ""])
def test_requests_to_other_servers_do_not_wait(url: str) -> None:
    readiness = Readiness()
    readiness.starting(URL)

    readiness.wait(url, 60)

    assert not readiness.supervises(url)


def test_wait_for_a_server_ends_with_its_limit_and_with_the_process() -> None:
    readiness = Readiness()
    readiness.starting(URL)

    readiness.wait(URL, 0)
    stopping.set()

    with pytest.raises(ServerStopping):
        readiness.wait(URL, 60)
