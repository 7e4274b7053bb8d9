"""The OpenAI-compatible API: pass requests and answers on, list models, and make embeddings."""

from app.services.gateway.embeddings import EmbeddingService
from app.services.gateway.models import GatewayModels
from app.services.gateway.service import GatewayService

__all__ = ["EmbeddingService", "GatewayModels", "GatewayService"]
