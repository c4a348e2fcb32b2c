"""The contract of engines, as tests to run against one (E6).

In a test file of pytest's::

    from asgi_bg.testing.engine_contract import EngineContract


    class TestMyEngine(EngineContract):
        def make_engine(self):
            return MyEngine("myqueue://127.0.0.1")

        def make_unreachable(self):
            return MyEngine("myqueue://127.0.0.1:1", timeout=1.0)

        @contextmanager
        def run_worker(self):
            with subprocess.Popen(["myqueue", "work", "tests.my_worker"]) as process:
                try:
                    yield
                finally:
                    process.kill()

The worker, which may be in another process, imports `asgi_bg.testing.contract_tasks` and has
its tasks registered as any others.
"""

from __future__ import annotations

try:
    import pytest as pytest  # what the tests stand on
except ImportError as exc:
    raise ImportError(
        "asgi_bg.testing.engine_contract needs pytest; install it with: "
        "pip install 'asgi_bg[testing]'"
    ) from exc

from asgi_bg.testing._engine_asking import Asking
from asgi_bg.testing._engine_sending import Sending
from asgi_bg.testing._engine_working import Working

__all__ = ["EngineContract"]


class EngineContract(Sending, Asking, Working):
    """What every engine does. Derive from it, and implement the three hooks.

    Attributes:
        dedupes: Whether a job that is sent twice while it waits runs once (E2).
        keeps_values: Whether the result store keeps what tasks return and raise, and not only
            how they end.
        deadline: How long anything may take that is waited for, in seconds.
        lead: How long a job is put off where delays are tested, in seconds.
        options: For each feature, an option that asks for it.
    """
