"""What to do when nothing answers on this machine where a provider should run."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from app.services.providers.store import Provider

_CONTAINER_MARK = Path("/.dockerenv")


def start_hint(provider: Provider) -> str:
    """Return how to start *provider*; empty where that is not known."""
    if provider.name != "Ollama":
        return ""
    if not _CONTAINER_MARK.exists():
        return "Start it with `ollama serve`, or this program with `make run`, which finds or starts one."
    port = urlsplit(provider.native_url).port or 11434
    return (
        "In a container, localhost is the container itself. For an Ollama in it, start it there, or "
        "start this program again with `make run`. For one outside, set base_url to "
        f"http://host.docker.internal:{port}/v1, run the container with "
        "--add-host=host.docker.internal:host-gateway and Ollama with OLLAMA_HOST=0.0.0.0."
    )
