"""The providers of chats: their settings, requests to their OpenAI-compatible APIs, and circuit breakers.

:mod:`openai_api` turns the exceptions of the openai client into our errors.
"""

from app.services.providers.circuits import Circuits
from app.services.providers.openai_api import OpenAIClients, ResponseBody, translated
from app.services.providers.readiness import START_LIMIT, Readiness
from app.services.providers.store import Provider, ProviderStore, start_hint

__all__ = [
    "START_LIMIT",
    "Circuits",
    "OpenAIClients",
    "Provider",
    "ProviderStore",
    "Readiness",
    "ResponseBody",
    "start_hint",
    "translated",
]
