"""An Ollama server: its native API, its models folder, its model names, and the registries it pulls from.

``OllamaServers`` makes the service for a provider, ``ModelFolders`` finds its models folder,
``RegistryService`` asks registries, :mod:`names` checks and compares names. :mod:`launcher` starts a server
when none runs.
"""

from app.services.ollama.allowed_registries import check_registry, is_plain
from app.services.ollama.folder import LocalStore, ModelFolders, partial_bytes
from app.services.ollama.launcher import Launcher
from app.services.ollama.names import check_name, find_model, key_of, parse_listed
from app.services.ollama.registry import ManifestSummary, RegistryService
from app.services.ollama.service import OllamaServers, OllamaService

__all__ = [
    "Launcher",
    "LocalStore",
    "ManifestSummary",
    "ModelFolders",
    "OllamaServers",
    "OllamaService",
    "RegistryService",
    "check_name",
    "check_registry",
    "find_model",
    "is_plain",
    "key_of",
    "parse_listed",
    "partial_bytes",
]
