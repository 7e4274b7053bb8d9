"""Background work: the queue, the workers that run pulls, and what is looked after now and then."""

from app.services.jobs.queue import Jobs
from app.services.jobs.worker import Chores, PullWorker

__all__ = ["Chores", "Jobs", "PullWorker"]
