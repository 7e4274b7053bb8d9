"""Background work: the queue, the workers that run pulls, and the recurring chores."""

from app.services.jobs.queue import Jobs
from app.services.jobs.worker import Chores, PullWorker

__all__ = ["Chores", "Jobs", "PullWorker"]
