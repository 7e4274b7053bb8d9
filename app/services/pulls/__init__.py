"""Pulls of models: each pull is a row in the database, which a worker runs and any client can watch.

:class:`~app.services.pulls.service.PullService` starts, pauses, resumes and cancels pulls.
:class:`~app.services.pulls.plan.PlanService` tells in advance what a pull would download.
"""

from app.services.pulls.feed import PullFeeds
from app.services.pulls.idempotency import IdempotencyService
from app.services.pulls.plan import Destination, PlanService, total
from app.services.pulls.run import PullRun, new_owner
from app.services.pulls.schedule import Occasions, is_open, occasion
from app.services.pulls.service import PullService, may_run
from app.services.pulls.store import PullStore

__all__ = [
    "Destination",
    "IdempotencyService",
    "Occasions",
    "PlanService",
    "PullFeeds",
    "PullRun",
    "PullService",
    "PullStore",
    "is_open",
    "may_run",
    "new_owner",
    "occasion",
    "total",
]
