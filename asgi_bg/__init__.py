"""Background tasks for every ASGI stack: queued in a request, run after its response."""

from asgi_bg._collector import BackgroundTasks, add_task
from asgi_bg._job import Job, JobInfo, JobStatus, current_job
from asgi_bg._runner import Runner
from asgi_bg._task import Task, task
from asgi_bg.events import JobEvent
from asgi_bg.middleware import BackgroundTaskMiddleware

__all__ = [
    "BackgroundTaskMiddleware",
    "BackgroundTasks",
    "Job",
    "JobEvent",
    "JobInfo",
    "JobStatus",
    "Runner",
    "Task",
    "add_task",
    "current_job",
    "task",
]

__version__ = "0.1.0"
