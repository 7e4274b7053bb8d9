"""Embeddings: texts go to a provider, a vector of each comes back."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

from app.services.gateway.relay import RelayService
from app.services.gateway.relayed import Passage
from app.services.providers.store import Provider
from app.services.settings import SettingsStore
from app.upstream.failures import invalid_response

Json = dict[str, Any]
Event = tuple[str, Json]


class EmbeddingService:
    """Makes embeddings."""

    def __init__(self, settings: SettingsStore, relay: RelayService) -> None:
        self._settings = settings
        self._relay = relay

    def embed(self, body: Json, request_id: str) -> Generator[list[Event], None, None]:
        """Embed the texts of *body*, as :class:`~app.schemas.embeddings.EmbeddingRequestSchema` loads it.

        Yields an empty list in each half second until then, and `done` in the end.

        :raises CapabilityMissing: when the model cannot embed
        :raises InvalidUpstreamResponse: when the answer is not one vector for each text
        """
        texts: list[str] = body["input"]
        embeddings: list[list[float]] = []

        def check(provider: Provider, answer: Json) -> None:
            embeddings.extend(_vectors(provider, answer, len(texts)))

        asked = {"input": texts, "encoding_format": "float"}
        if body.get("dimensions") is not None:
            asked["dimensions"] = body["dimensions"]
        provider_id = body.get("provider") or self._settings.all()["default_provider"]
        passage = Passage("embeddings", provider_id, body.get("model") or "", asked, request_id, check)
        with closing(self._relay.send(passage)) as parts:
            for data in parts:
                if not data:
                    yield []
        yield [("done", _result(passage, embeddings))]


def _result(passage: Passage, embeddings: list[list[float]]) -> Json:
    return {
        "embeddings": embeddings,
        "provider": passage.provider_id,
        "model": passage.model,
        "usage": {name: passage.usage.get(name) for name in ("prompt_tokens", "total_tokens")},
        "response_time": round(time.monotonic() - passage.started, 3),
        "request_id": passage.request_id,
    }


def _vectors(provider: Provider, answer: Json, count: int) -> list[list[float]]:
    """Return the vectors in the order of their ``index``.

    :raises InvalidUpstreamResponse: when they are not *count* vectors of numbers
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
    return isinstance(value, list) and bool(value) and set(map(type, value)) <= {int, float}
