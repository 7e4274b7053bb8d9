"""Update installed models: compare them with their registries, and pull them on request or once a day.

The views use ``UpdateService``, the chores ``DailyUpdate``.
"""

from app.services.updates.daily import DailyUpdate
from app.services.updates.registry_answers import RegistryAnswers
from app.services.updates.service import UpdateService

__all__ = ["DailyUpdate", "RegistryAnswers", "UpdateService"]
