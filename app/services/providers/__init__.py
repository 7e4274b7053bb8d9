"""The providers of chats: their settings, the requests to their OpenAI APIs, and which of them are down.

The failures of the openai client become our errors in :mod:`openai_api`.
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
