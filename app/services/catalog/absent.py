"""The model of a request that names none, and what to say where a model is absent or cannot do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.config import Timeouts
from app.errors import CapabilityMissing, InvalidRequest, ModelNotFound, ServiceError
from app.services.ollama.names import find_model
from app.services.ollama.service import OllamaService
from app.services.providers import openai_api as openai_client
from app.services.providers.store import Provider

if TYPE_CHECKING:
    import openai


def own_model(provider: Provider, ollama: OllamaService | None, endpoint: str) -> str:
    """Return the configured model of *provider*; of Ollama one that is installed and can do it.

    :raises InvalidRequest: when none is configured
    :raises ModelNotFound: when none is installed
    :raises CapabilityMissing: when no installed one can
    """
    if ollama is None:
        if not provider.model:
            raise InvalidRequest(
                "Model is required",
                hint=f"The settings of {provider.name} name none either.",
                details={"model": ["Model is required"]},
            )
        return provider.model
    if endpoint == "embeddings":
        found = embedding_models(ollama)
        if not found:
            raise cannot_embed(ollama)
        return found[0]
    if provider.model and find_model(ollama.list()["models"], provider.model):
        return provider.model
    return ollama.first_chat_model()


def embedding_models(ollama: OllamaService) -> list[str]:
    """Return the installed models that make embeddings."""
    return [m["name"] for m in ollama.list()["models"] if "embedding" in m.get("capabilities", ())]


def cannot_embed(ollama: OllamaService, model: str = "") -> CapabilityMissing:
    """Say that *model* makes no embeddings, and which does."""
    available = embedding_models(ollama)
    there = f"Installed ones that can: {', '.join(available[:20])}." if available else "None installed can."
    return CapabilityMissing(
        f"The model '{model}' cannot make embeddings."
        if model
        else "No installed model can make embeddings.",
        hint=f'{there} Pull one: POST /api/providers/ollama/pull {{"model": "nomic-embed-text"}}',
        details={"model": model, "capability": "embedding", "available": available},
    )


def absent(provider: Provider, model: str, available: list[str]) -> ModelNotFound:
    """Say that *provider* does not have *model*, and what it has."""
    return ModelNotFound(
        f"{provider.name} does not have the model '{model}'.",
        hint=f"GET /api/providers/{provider.id}/models lists what it has.",
        details={"model": model, "available": available[:100]},
    )


def not_offered(
    client: openai.OpenAI, provider: Provider, model: str, endpoint: str, timeouts: Timeouts
) -> ServiceError:
    """Say what it means that *provider* answers 404: it lacks *model*, or has it and lacks *endpoint*."""
    try:
        listed = openai_client.list_models(client, provider, timeouts)
        available = [entry["id"] for entry in listed["models"]]
    except ServiceError:
        available = []
    hint = f"GET /api/providers/{provider.id}/models lists what it has."
    if model in available:
        details = {"model": model, "capability": endpoint}
        return CapabilityMissing(
            f"{provider.name} has no {endpoint} for the model '{model}'.", hint=hint, details=details
        )
    there = f" It has {', '.join(available[:20])}." if available else ""
    return ModelNotFound(
        f"{provider.name} does not have the model '{model}'.{there}",
        hint=hint,
        details={"model": model, "available": available[:100]},
    )
