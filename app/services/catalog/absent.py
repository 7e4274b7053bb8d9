"""The errors for a model that is not there, or that cannot do what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import CapabilityMissing, InvalidRequest, ModelNotFound, ServiceError
from app.services.providers import Provider


def absent(provider: Provider, model: str, available: Sequence[str]) -> ModelNotFound:
    """Say that *provider* does not have *model*, and what it has."""
    return ModelNotFound(
        f"{provider.name} does not have the model '{model}'.",
        hint=_where_to_look(provider),
        details={"model": model, "available": available[:100]},
    )


def not_offered(provider: Provider, model: str, endpoint: str, available: Sequence[str]) -> ServiceError:
    """Say what a 404 of *provider* means: it lacks *model*, or has it and lacks *endpoint*."""
    if model in available:
        return CapabilityMissing(
            f"{provider.name} has no {endpoint} for the model '{model}'.",
            hint=_where_to_look(provider),
            details={"model": model, "capability": endpoint},
        )
    there = f" It has {', '.join(available[:20])}." if available else ""
    return ModelNotFound(
        f"{provider.name} does not have the model '{model}'.{there}",
        hint=_where_to_look(provider),
        details={"model": model, "available": available[:100]},
    )


def cannot_embed(able: Sequence[str], model: str = "") -> CapabilityMissing:
    """Say that *model*, or any installed one, makes no embeddings, and which models are *able* to."""
    there = f"Installed ones that can: {', '.join(able[:20])}." if able else "None installed can."
    return CapabilityMissing(
        f"The model '{model}' cannot make embeddings."
        if model
        else "No installed model can make embeddings.",
        hint=f'{there} Pull one: POST /api/providers/ollama/pull {{"model": "nomic-embed-text"}}',
        details={"model": model, "capability": "embedding", "available": able},
    )


def no_chat_model(provider: Provider, installed: Sequence[str]) -> ModelNotFound:
    """Say that no *installed* model of an Ollama server can chat."""
    return ModelNotFound(
        f"{provider.name} has no model that can chat.",
        hint='Pull one: POST /api/providers/ollama/pull {"model": "llama3.2:1b"}',
        details={"available": installed},
    )


def no_model_offered(provider: Provider) -> ModelNotFound:
    """Say that *provider* has no model at all."""
    return ModelNotFound(
        f"{provider.name} offers no model.",
        hint="Load one there, then ask again.",
        details={"available": []},
    )


def no_model_configured(provider: Provider) -> InvalidRequest:
    """Say that neither the request nor the settings of *provider* name a model."""
    return InvalidRequest(
        "Model is required",
        hint=f"The settings of {provider.name} name none either.",
        details={"model": ["Model is required"]},
    )


def _where_to_look(provider: Provider) -> str:
    return f"GET /api/providers/{provider.id}/models lists what it has."
