"""The errors for a model that a provider does not have, or that cannot do what the request needs."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import CapabilityMissing, InvalidRequest, ModelNotFound, ServiceError
from app.services.providers import Provider


def absent(provider: Provider, model: str, available: Sequence[str]) -> ModelNotFound:
    """Return the error for a *model* that *provider* does not have."""
    return ModelNotFound(
        f"{provider.name} does not have the model '{model}'.",
        hint=_where_to_look(provider),
        details={"model": model, "available": available[:100]},
    )


def not_offered(provider: Provider, model: str, endpoint: str, available: Sequence[str]) -> ServiceError:
    """Return the error for a 404 of *provider*: it lacks *model*, or has the model but not *endpoint*."""
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
    """Return the error for a *model* that cannot make embeddings.

    :param able: the installed models that can
    :param model: empty when the request names no model, and no installed model can
    """
    there = f"Installed ones that can: {', '.join(able[:20])}." if able else "None installed can."
    return CapabilityMissing(
        f"The model '{model}' cannot make embeddings."
        if model
        else "No installed model can make embeddings.",
        hint=f'{there} Pull one: POST /api/providers/ollama/pull {{"model": "nomic-embed-text"}}',
        details={"model": model, "capability": "embedding", "available": able},
    )


def no_chat_model(provider: Provider, installed: Sequence[str]) -> ModelNotFound:
    """Return the error for an Ollama server of whose *installed* models none can chat."""
    return ModelNotFound(
        f"{provider.name} has no model that can chat.",
        hint='Pull one: POST /api/providers/ollama/pull {"model": "llama3.2:1b"}',
        details={"available": installed},
    )


def no_model_offered(provider: Provider) -> ModelNotFound:
    """Return the error for a *provider* that has no model at all."""
    return ModelNotFound(
        f"{provider.name} offers no model.",
        hint="Load one there, then ask again.",
        details={"available": []},
    )


def no_model_configured(provider: Provider) -> InvalidRequest:
    """Return the error for a request without a model, when the settings of *provider* have none either."""
    return InvalidRequest(
        "Model is required",
        hint=f"Name one in the request, or set a default with PATCH /api/providers/{provider.id}.",
        details={"model": ["Model is required"]},
    )


def _where_to_look(provider: Provider) -> str:
    return f"GET /api/providers/{provider.id}/models lists what it has."
