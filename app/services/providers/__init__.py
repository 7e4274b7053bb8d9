"""The providers of chats: their settings, requests to their OpenAI-compatible APIs, and circuit breakers.

:mod:`openai_api` turns the exceptions of the openai client into our errors.
"""

from app.services.providers.circuits import Circuits
from app.services.providers.openai_api import OpenAIClients, ResponseBody, translated
from app.services.providers.store import Provider, ProviderStore, start_hint

__all__ = [
    "Circuits",
    "OpenAIClients",
    "Provider",
    "ProviderStore",
    "ResponseBody",
    "start_hint",
    "translated",
]
