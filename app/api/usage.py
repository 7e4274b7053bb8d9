"""``/api/usage``: the calls to providers, with their tokens and times."""

from __future__ import annotations

from typing import Any

from marshmallow import RAISE

from app.api.base import Blueprint
from app.extensions import services
from app.schemas.usage import UsageQuerySchema, UsageReport, UsageReportSchema

blp = Blueprint("usage", __name__, url_prefix="/api/usage", description="Calls, tokens and speeds")


@blp.get("")
@blp.arguments(UsageQuerySchema, location="query", unknown=RAISE)
@blp.response(200, UsageReportSchema)
def get_usage(query: dict[str, Any]) -> UsageReport:
    """Sum up the calls to providers by day, provider and model

    Days are in UTC. Speeds and times are of the newest 100,000 calls of each day, provider and model.
    """
    return services.usage.report(**query)
