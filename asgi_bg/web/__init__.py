"""To look at jobs from a browser: a dashboard for operators, and a status API for clients."""

from asgi_bg.web.dashboard import Dashboard
from asgi_bg.web.status import JobStatusApp

__all__ = ["Dashboard", "JobStatusApp"]
