"""``/api/settings``: the settings that a user changes while the program runs."""

from __future__ import annotations

from typing import Any

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.settings import SettingsSchema, SettingsValues

blp = Blueprint("settings", __name__, url_prefix="/api/settings", description="Settings for all chats")


@blp.get("")
@blp.response(200, SettingsSchema)
def get_settings() -> SettingsValues:
    """Get the settings in force"""
    return services.settings.all()


@blp.put("")
@blp.arguments(SettingsSchema, example={"system_prompt": "You are brief."})
@blp.response(200, SettingsSchema)
def put_settings(body: dict[str, Any]) -> SettingsValues:
    """Change the settings of the body; all other settings stay as they are"""
    for name in ("default_provider", "fallback_provider"):
        if body.get(name) is not None:
            services.providers.get(body[name])
    return services.settings.update(**body)
