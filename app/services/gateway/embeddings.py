"""Make embeddings: the provider returns one vector for each text."""

from __future__ import annotations

import time
from array import array
from collections.abc import Generator
from contextlib import closing

from app.schemas.embeddings import EmbeddingRequest, EmbeddingResponse
from app.schemas.openai_v1 import OpenAIAnswer, OpenAIRequest
from app.services.gateway.service import EMBEDDINGS, GatewayService, RelayedRequest
from app.services.providers import Provider
from app.services.settings import SettingsStore
from app.upstream.failures import invalid_response
from app.upstream.json import count

Event = tuple[str, EmbeddingResponse]


class EmbeddingService:
    """Makes embeddings."""

    def __init__(self, settings: SettingsStore, gateway: GatewayService) -> None:
        self._settings = settings
        self._gateway = gateway

    def embed(self, body: EmbeddingRequest, request_id: str) -> Generator[list[Event], None, None]:
        """Embed the texts of *body*, as loaded by :class:`~app.schemas.embeddings.EmbeddingRequestSchema`.

        Yields an empty list in each silent tick, and at last `done`.

        :raises CapabilityMissing: when the model cannot embed
        :raises InvalidUpstreamResponse: when the answer does not hold one vector for each text
        """
        texts: list[str] = body["input"]
        embeddings: list[list[float]] = []

        def check(provider: Provider, answer: OpenAIAnswer) -> None:
            embeddings.extend(_vectors(provider, answer, len(texts)))

        asked: OpenAIRequest = {"input": texts, "encoding_format": "float"}
        if (dimensions := body.get("dimensions")) is not None:
            asked["dimensions"] = dimensions
        provider_id = body.get("provider") or self._settings.all()["default_provider"]
        model = body.get("model") or ""
        request = RelayedRequest(EMBEDDINGS, provider_id, model, asked, request_id, check)
        with closing(self._gateway.send(request)) as parts:
            for data in parts:
                if not data:
                    yield []
        yield [("done", _result(request, embeddings))]


def _result(request: RelayedRequest, embeddings: list[list[float]]) -> EmbeddingResponse:
    return {
        "embeddings": embeddings,
        "provider": request.provider_id,
        "model": request.model,
        "usage": {
            "prompt_tokens": count(request.usage.get("prompt_tokens")),
            "total_tokens": count(request.usage.get("total_tokens")),
        },
        "response_time": round(time.monotonic() - request.started, 3),
        "request_id": request.request_id,
    }


def _vectors(provider: Provider, answer: OpenAIAnswer, count: int) -> list[list[float]]:
    """Return the vectors in the order of their ``index``.

    :raises InvalidUpstreamResponse: when the answer does not hold *count* vectors of numbers
    """
    try:
        found = {entry["index"]: entry["embedding"] for entry in answer["data"]}
        vectors = [found[index] for index in range(count)]
        is_right = len(answer["data"]) == count and all(_is_vector(vector) for vector in vectors)
    except (KeyError, TypeError):
        is_right = False
    if not is_right:
        raise invalid_response(provider.name, "it is not one vector for each text")
    return vectors


def _is_vector(value: object) -> bool:
    """Tell whether *value* is a list of numbers that a program can compute with."""
    if not isinstance(value, list) or not value or not set(map(type, value)) <= {int, float}:
        return False
    try:
        array("d", value)
    except OverflowError:
        return False
    return True
