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
@blp.response(200, description="An object with each provider by its id")
def list_providers() -> dict[str, Any]:
    """List the providers, by id

    API keys are never shown: `api_key_set` tells whether a provider has one, `api_key_last4` how it ends.
    """
    return {id: ProviderSchema().dump(p) for id, p in services.providers.all().items()}


@blp.post("")
@blp.arguments(ProviderCreateSchema, example=_OWN)
@blp.response(201, ProviderSchema)
@blp.alt_response(409, schema=ErrorSchema, description="The id is taken")
def create_provider(body: dict[str, Any]) -> tuple[Provider, dict[str, str]]:
    """Add a custom provider"""
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
    """Replace the settings of a provider

    A field that is left out gets its default, except `kind` and `api_key`, which stay. The key stays only
    while `base_url` is on the same server. Read-only fields are ignored.
    """
    return services.providers.replace(id, **body)


@blp.patch("/<id>")
@blp.arguments(ProviderFieldsSchema, example={"enabled": True})
@blp.response(200, ProviderSchema)
def update_provider(body: dict[str, Any], id: str) -> Provider:
    """Change some settings of a provider

    A `base_url` on another server removes the API key, unless the request has a new one.
    """
    return services.providers.update(id, **body)


@blp.delete("/<id>")
@blp.response(204)
@blp.alt_response(409, schema=ErrorSchema, description="It is shipped with the program: disable it instead")
def delete_provider(id: str) -> None:
    """Delete a custom provider"""
    services.providers.delete(id)


@blp.post("/<id>/test")
@blp.response(200, ProviderTestSchema)
def test_provider(id: str) -> ProviderTest:
    """Test the connection to a provider

    The outcome becomes the provider's `status`. A failed test is a 200 too, with the reason as its `status`.
    """
    return services.provider_check.test(id)


@blp.get("/<id>/models")
@blp.response(200, ProviderModelListSchema)
def list_provider_models(id: str) -> ProviderModels:
    """List the models that a provider offers"""
    models = services.offers.of(services.providers.get(id)).all()
    return {"models": models, "total": len(models)}
