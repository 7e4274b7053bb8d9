"""Updates of installed models: found in their registries, pulled on request or once a day.

``UpdateService`` is for the views, ``DailyUpdate`` for the worker.
"""

from app.services.updates.daily import DailyUpdate
from app.services.updates.registry_answers import RegistryAnswers
from app.services.updates.service import UpdateService

__all__ = ["DailyUpdate", "RegistryAnswers", "UpdateService"]
