"""Choose the model for a request that names none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from app.schemas.models import InstalledModel
from app.services.catalog.absent import cannot_embed, no_chat_model, no_model_configured
from app.services.ollama import find_model
from app.services.providers import Provider


def configured_model(provider: Provider) -> str:
    """Return the model that the settings of *provider* name.

    :raises InvalidRequest: when they name none
    """
    if not provider.model:
        raise no_model_configured(provider)
    return provider.model


def installed_model(provider: Provider, installed: Sequence[InstalledModel], endpoint: str) -> str:
    """Return the configured model if it is *installed*, else the newest installed model that can chat.

    For ``embeddings``, return the newest model that makes embeddings: the configured model is for chats.

    :raises ModelNotFound: when no installed model can chat
    :raises CapabilityMissing: when no installed model can make embeddings
    """
    if endpoint == "embeddings":
        able = embedding_models(installed)
        if not able:
            raise cannot_embed(able)
        return able[0]
    if provider.model and find_model(installed, provider.model):
        return provider.model
    return chat_model(provider, installed)


def chat_model(provider: Provider, installed: Sequence[InstalledModel], needs: Set[str] = frozenset()) -> str:
    """Return the newest *installed* model that can chat, if possible one with the capabilities *needs*.

    :raises ModelNotFound: when no installed model can chat
    """
    # Ollama before 0.30 lists no capabilities: then any model may be able to chat.
    able = [model for model in installed if "completion" in model.get("capabilities", ["completion"])]
    if not able:
        raise no_chat_model(provider, [model["name"] for model in installed])
    able.sort(key=lambda model: not needs <= set(model.get("capabilities", ())))  # stable: the newest first
    return able[0]["name"]


def embedding_models(installed: Iterable[InstalledModel]) -> list[str]:
    """Return the names of the *installed* models that make embeddings."""
    return able_models(installed, {"embedding"})


def able_models(installed: Iterable[InstalledModel], needs: Set[str]) -> list[str]:
    """Return the names of the *installed* models that have all the capabilities *needs*."""
    return [model["name"] for model in installed if needs <= set(model.get("capabilities", ()))]
