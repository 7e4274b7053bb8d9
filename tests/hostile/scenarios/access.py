"""Every route, asked by those who may not: no key, a wrong key, another site's page, a rebound name, a proxy."""

from __future__ import annotations

import http.client
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.processes import Backend, spooled, wait_until
from tests.hostile.result import Result
from tests.hostile.routes import PUBLIC, filled, routes
from tests.hostile.run import Run

KEY = "a-long-random-text-of-a-person"
HIDDEN = [("GET", "/", False), ("GET", "/api/docs", False), ("GET", "/api/openapi.json", False)]

Headers = dict[str, str]

STRANGERS: list[Headers] = [
    {},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Bearer {KEY[:-1]}"},
    {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": "Bearer \xe9\xff"},
    {"X-API-Key": "wrong"},
    {"X-API-Key": ""},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
    {"X-Original-URL": "/api/health", "X-Rewrite-URL": "/api/health"},
    {"SCRIPT_NAME": "/api/health", "Script-Name": "/api/health"},
    {"X-HTTP-Method-Override": "OPTIONS"},
    {"Cookie": f"key={KEY}"},
]
OTHER_SITES: list[Headers] = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8002"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "evil.example", "X-Forwarded-Host": "localhost"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost:1"},
]
PROXIES: list[Headers] = [  # a proxy brings anyone: without a key they are refused
    {"X-Forwarded-For": "203.0.113.9"},
    {"Forwarded": "for=203.0.113.9"},
    {"X-Real-IP": "127.0.0.1"},
    {"Via": "1.1 proxy"},
]
OTHER_PAGES: list[Headers] = [  # a link may lead to the public pages from anywhere
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
]
TRICKS = [
    "/api/health/../settings", "/api/docs/../settings", "/api/docs/assets/../../settings", "/api/health/%2e%2e/settings",
    "//api/settings", "/api//settings", "/api/settings/", "/api/settings;/api/health", "/api/settings?x=/api/health",
    "/API/SETTINGS", "/api/settings%00", "/api/settings#/api/health", "/api/healthx", "/api/docsx",
    "/api/openapi.jsonx", "http://127.0.0.1/api/settings", "/api/docs/assets/..%2f..%2f..%2fconfig.py",
    "/api/docs/assets/%2e%2e/%2e%2e/setup.cfg", "/api/docs/assets//etc/passwd", "/./api/settings",
]  # fmt: skip


def run(run: Run) -> None:
    result = run.result
    provider = run.provider()
    backend = run.backend(provider, BACKEND_API_KEY=KEY)
    for method, path, has_body in [*routes(backend), *HIDDEN]:
        for headers in _some(run, STRANGERS):
            _refused(result, backend, method, path, has_body, headers, public=True)
        for headers in _some(run, _of_other_sites(path)):
            _refused(result, backend, method, path, has_body, {"Authorization": f"Bearer {KEY}", **headers})
    for path in TRICKS:
        status, text = send(backend, "GET", path, {}, False)
        open_ = status == 200 and not path.startswith("/api/docs/assets")
        result.check(
            not open_ and "default_provider" not in text and "root:" not in text, f"{path}: {status}"
        )
    own = run.backend(provider)
    for method, path, has_body in [*routes(own), *HIDDEN]:
        for headers in _some(run, [*_of_other_sites(path), *PROXIES]):
            _refused(result, own, method, path, has_body, headers)
    for unsafe in run.pick(["0.0.0.0"], ["0.0.0.0", "::"]):
        _must_not_listen(result, run, unsafe)
    for what, backend_ in (("a key", backend), ("no key", own)):
        _bodies_before_the_checks(result, backend_, what, run.pick(20, 100))
        _files_are_private(result, backend_, what)


def _some(run: Run, ways: list[Headers]) -> list[Headers]:
    return run.rng.sample(ways, run.pick(4, len(ways)))


def _of_other_sites(path: str) -> list[Headers]:
    return OTHER_SITES if path == "/" or path.startswith(PUBLIC) else [*OTHER_SITES, *OTHER_PAGES]


def _refused(
    result: Result,
    backend: Backend,
    method: str,
    path: str,
    has_body: bool,
    headers: Headers,
    *,
    public: bool = False,
) -> None:
    """Check that a request is refused; *public*: unless the route is open to all."""
    status, _ = send(backend, method, filled(path), headers, has_body)
    expected = {401} if public else {400, 401, 403}
    if public and method == "GET" and path.startswith(PUBLIC):
        expected = {200}
    shown = {name: value for name, value in headers.items() if KEY not in value or name == "Cookie"}
    result.check(
        status in expected, f"{'key' if backend.key else 'no key'}: {method} {path} {shown}: {status}"
    )


def send(backend: Backend, method: str, path: str, headers: Headers, has_body: bool) -> tuple[int, str]:
    """Send exactly these headers; return the status and the beginning of the body, 0 for a closed connection."""
    connection = http.client.HTTPConnection("127.0.0.1", backend.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        if has_body:
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", "2")
        connection.endheaders(b"{}" if has_body else None)
        response = connection.getresponse()
        return response.status, response.read(4000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def _must_not_listen(result: Result, run: Run, host: str) -> None:
    """A server for other machines without a key must refuse to start, in a sentence."""
    backend = run.backend(None, "--host", host, start=False, BACKEND_API_KEY="")
    backend.start()
    wait_until(lambda: not backend.running, 30)
    refused = not backend.running and "BACKEND_API_KEY" in backend.log and "Traceback" not in backend.log
    backend.kill()
    result.check(refused, f"--host {host} without a key: {backend.log[-200:]}")


def _bodies_before_the_checks(result: Result, backend: Backend, what: str, megabytes: int) -> None:
    """A body must not be on the disk, nor be read to its end, for one who may not send it."""
    for path in (
        "/api/chat",
        "/v1/chat/completions",
        "/api/conversations/import",
        "/api/providers/ollama/create",
    ):
        for framing in ("length", "chunked"):
            before = spooled(backend.pid)
            most = max(
                (spooled(backend.pid) - before for _ in _upload(backend, path, framing, megabytes)), default=0
            )
            result.check(
                most < 2_000_000,
                f"{what}: a refused body ({framing}) of POST {path} was on the disk with {most // 1_000_000} MB",
            )


def _upload(backend: Backend, path: str, framing: str, megabytes: int) -> Iterator[None]:
    """Send a body as a page of another site; yield after each megabyte, and stop when refused."""
    kind = "application/octet-stream" if path.endswith("create") else "application/json"
    size = megabytes * 1_000_000
    head = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    with socket.create_connection(("127.0.0.1", backend.port), timeout=1) as sock:
        sock.sendall(
            f"POST {path} HTTP/1.1\r\nHost: evil.example\r\nContent-Type: {kind}\r\n{head}\r\n\r\n".encode()
        )
        part = b" " * 1_000_000
        try:
            for _ in range(megabytes):
                sock.sendall(b"%x\r\n%s\r\n" % (len(part), part) if framing == "chunked" else part)
                yield
        except OSError:  # refused
            return


def _files_are_private(result: Result, backend: Backend, what: str) -> None:
    """No other user of the machine may read the data folder or what is in it."""
    for path in [backend.data, *backend.data.rglob("*")]:
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        name = Path(path).relative_to(backend.data.parent)
        result.check(
            not mode & 0o077, f"{what}: {str(name).replace(backend.data.name, 'data')} has mode {mode:04o}"
        )
