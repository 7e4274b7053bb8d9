"""The recordings of a real Ollama in `tests/wire/`: tests compare answers with them, and replay them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from responses import RequestsMock

FOLDER = Path(__file__).parent / "wire"


@dataclass(frozen=True)
class Recording:
    """One recorded answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "")


def recording(name: str) -> Recording:
    """Return the recorded answer in `responses/NAME.http`."""
    head, _, body = (FOLDER / "responses" / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    return Recording(int(status.split()[1]), headers, body)


def replay(mock: RequestsMock, method: str, url: str, name: str) -> None:
    """Let *mock* answer *url* with the recording *name*."""
    recorded = recording(name)
    mock.add(method, url, recorded.body, status=recorded.status, content_type=recorded.content_type)
