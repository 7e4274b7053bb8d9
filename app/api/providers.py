"""``/api/providers``: the services that answer chats."""

from __future__ import annotations

from typing import Any

from flask import url_for

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.base import ErrorSchema
from app.schemas.providers import (
    ProviderCreateSchema,
    ProviderFieldsSchema,
    ProviderModelListSchema,
    ProviderModels,
    ProviderReplaceSchema,
    ProviderSchema,
    ProviderTest,
    ProviderTestSchema,
)
from app.services.providers import Provider

blp = Blueprint(
    "providers", __name__, url_prefix="/api/providers", description="The services that answer chats"
)


_OWN = {"id": "mine", "name": "Mine", "base_url": "http://localhost:1234/v1", "enabled": True}


@blp.get("")
@blp.response(200, description="The providers, an object by id")
def list_providers() -> dict[str, Any]:
    """List the providers, by id

    API keys are never shown: `api_key_set` and `api_key_last4` tell whether there is one.
    """
    return {id: ProviderSchema().dump(p) for id, p in services.providers.all().items()}


@blp.post("")
@blp.arguments(ProviderCreateSchema, example=_OWN)
@blp.response(201, ProviderSchema)
@blp.alt_response(409, schema=ErrorSchema, description="The id is taken")
def create_provider(body: dict[str, Any]) -> tuple[Provider, dict[str, str]]:
    """Add a provider of one's own"""
    provider = services.providers.create(**body)
    return provider, {"Location": url_for("providers.get_provider", id=provider.id)}


@blp.get("/<id>")
@blp.response(200, ProviderSchema)
def get_provider(id: str) -> Provider:
    """Get a provider"""
    return services.providers.get(id)


@blp.put("/<id>")
@blp.arguments(ProviderReplaceSchema)
@blp.response(200, ProviderSchema)
def replace_provider(body: dict[str, Any], id: str) -> Provider:
    """Set a provider

    What is left out gets its default, but for `api_key`, which stays. Read-only fields are passed over.
    """
    return services.providers.replace(id, **body)


@blp.patch("/<id>")
@blp.arguments(ProviderFieldsSchema, example={"enabled": True})
@blp.response(200, ProviderSchema)
def update_provider(body: dict[str, Any], id: str) -> Provider:
    """Change some of a provider's settings"""
    return services.providers.update(id, **body)


@blp.delete("/<id>")
@blp.response(204)
@blp.alt_response(409, schema=ErrorSchema, description="It is shipped: disable it instead")
def delete_provider(id: str) -> None:
    """Delete a provider of one's own"""
    services.providers.delete(id)


@blp.post("/<id>/test")
@blp.response(200, ProviderTestSchema)
def test_provider(id: str) -> ProviderTest:
    """Test the connection to a provider, and keep the outcome as its status"""
    return services.provider_check.test(id)


@blp.get("/<id>/models")
@blp.response(200, ProviderModelListSchema)
def list_provider_models(id: str) -> ProviderModels:
    """List the models that a provider offers"""
    models = services.offers.of(services.providers.get(id)).all()
    return {"models": models, "total": len(models)}
