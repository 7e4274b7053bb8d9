"""The API that other programs speak: OpenAI's. Requests and answers are passed on as they are."""

from app.services.gateway.embeddings import EmbeddingService
from app.services.gateway.models import GatewayModels
from app.services.gateway.service import GatewayService

__all__ = ["EmbeddingService", "GatewayModels", "GatewayService"]
