"""Look-ups in registries: which redirects are followed."""

from __future__ import annotations

import pytest
import responses

from app.config import Timeouts
from app.errors import InvalidUpstreamResponse
from app.model_name import ModelName
from app.services.ollama import RegistryService
from app.upstream.session import UpstreamSession

NAME = ModelName.parse("tiny:1")
DIGEST = "sha256:" + "a" * 64
BLOB = f"https://registry.ollama.ai/v2/library/tiny/blobs/{DIGEST}"


@pytest.fixture
def registry() -> RegistryService:
    return RegistryService(UpstreamSession(), Timeouts)


def test_layer_is_read_from_where_the_registry_redirects_to(
    registry: RegistryService, wire: responses.RequestsMock
) -> None:
    wire.get(BLOB, status=307, headers={"Location": "https://cdn.example/x?signed=1"})
    wire.get("https://cdn.example/x?signed=1", body=b"GGUF")

    assert registry.blob_start(NAME, DIGEST, 4) == b"GGUF"


@pytest.mark.parametrize(
    "to", ["https://127.0.0.1:8002/api/health", "http://cdn.example/x", "https://[bad/x", "?:"]
)
def test_redirect_to_this_machine_is_refused_in_a_sentence(
    registry: RegistryService, wire: responses.RequestsMock, to: str
) -> None:
    wire.get(BLOB, status=307, headers={"Location": to})
    if to == "?:":
        wire.get(f"{BLOB}?:", status=307, headers={"Location": "https://10.0.0.1/"})

    with pytest.raises(
        InvalidUpstreamResponse, match=r"The registry registry\.ollama\.ai gave an invalid response: "
    ):
        registry.blob_start(NAME, DIGEST, 4)
