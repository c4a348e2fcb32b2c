"""Test tools: what is of use in the tests of others, and never in the app itself.

Here is what records background tasks; the pytest fixture ``background_tasks`` is the same. Apart
from it, in modules of their own, are `asgi_bg.testing.crash`, which kills servers, and the
contracts of journals and engines, `asgi_bg.testing.journal_contract` and
`asgi_bg.testing.engine_contract`.
"""

from __future__ import annotations

from asgi_bg.testing._clock import Clock
from asgi_bg.testing._recorded import RecordedJob
from asgi_bg.testing.recorder import Drained, TaskRecorder, record_tasks

__all__ = ["Clock", "Drained", "RecordedJob", "TaskRecorder", "record_tasks"]
