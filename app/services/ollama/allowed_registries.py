"""Which registries models may be pulled from.

Ollama connects to whatever host a model's name contains. Without this check, a client could make Ollama send
requests to any machine in the network.
"""

from __future__ import annotations

from functools import lru_cache

from app.config import is_loopback
from app.errors import RegistryNotAllowed
from app.model_name import ModelName


@lru_cache(maxsize=256)
def check_registry(host: str, *, insecure: bool, allowed: tuple[str, ...]) -> None:
    """Check that Ollama may connect to *host*: it is on this machine, or one of *allowed*.

    :param insecure: whether the connection is plain HTTP
    :raises RegistryNotAllowed: for any other host, and for plain HTTP to another machine
    """
    name, colon, _port = host.rpartition(":")
    here = is_loopback(name if colon else host)
    if not here and host.lower() not in {a.lower() for a in allowed}:
        raise RegistryNotAllowed(
            f"Models may not be pulled from '{host}'.",
            hint=f"Allow it with BACKEND_ALLOWED_REGISTRIES={','.join([*allowed, host])}",
            details={"registry": host, "allowed": list(allowed)},
        )
    if insecure and not here:
        raise RegistryNotAllowed(
            f"Plain HTTP to the registry '{host}' is not allowed.",
            hint='Leave "insecure" out; it is for registries on this machine.',
            details={"registry": host},
        )


def is_plain(name: ModelName) -> bool:
    """Tell whether the registry of *name* speaks plain HTTP: a registry on this machine does."""
    host, colon, _port = name.host.rpartition(":")
    return is_loopback(host if colon else name.host)
