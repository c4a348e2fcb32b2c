"""What the engine for Celery uses of Celery and kombu, which come without types.

Needs the extra ``asgi_bg[celery]``, or a Celery that is there anyway.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

try:
    import amqp  # type: ignore[import-untyped]
    import amqp.spec  # type: ignore[import-untyped]
    import celery  # type: ignore[import-untyped]
    import celery.app.backends  # type: ignore[import-untyped]
    import celery.backends.base  # type: ignore[import-untyped]
    import celery.backends.rpc  # type: ignore[import-untyped]
    import celery.canvas  # type: ignore[import-untyped]
    import celery.exceptions  # type: ignore[import-untyped]
    import celery.utils.functional  # type: ignore[import-untyped]
    import celery.utils.quorum_queues  # type: ignore[import-untyped]
    import celery.utils.time  # type: ignore[import-untyped]
    import kombu  # type: ignore[import-untyped]
    import kombu.common  # type: ignore[import-untyped]
    import kombu.exceptions  # type: ignore[import-untyped]
    import kombu.transport.native_delayed_delivery  # type: ignore[import-untyped]
    import kombu.utils.json  # type: ignore[import-untyped]
except ImportError as exc:
    raise ImportError(
        "asgi_bg.engines.celery needs Celery 5.5; install it with: pip install 'asgi_bg[celery]'"
    ) from exc

Celery: Any = celery.Celery
CeleryTask: Any = celery.Task
Signature: Any = celery.canvas.Signature
QueueNotFound: Any = celery.exceptions.QueueNotFound
Reject: Any = celery.exceptions.Reject
SoftTimeLimitExceeded: type[Exception] = celery.exceptions.SoftTimeLimitExceeded
WorkerShutdown: type[BaseException] = celery.exceptions.WorkerShutdown
WorkerTerminate: type[BaseException] = celery.exceptions.WorkerTerminate
DisabledBackend: Any = celery.backends.base.DisabledBackend
RPCBackend: Any = celery.backends.rpc.RPCBackend
backend_by_url: Any = celery.app.backends.by_url
detect_quorum_queues: Any = celery.utils.quorum_queues.detect_quorum_queues
maybe_list: Any = celery.utils.functional.maybe_list
maybe_make_aware: Any = celery.utils.time.maybe_make_aware

Exchange: Any = kombu.Exchange
Producer: Any = kombu.Producer
EncodeError: type[Exception] = kombu.exceptions.EncodeError
BasicPublish: Any = amqp.spec.Basic.Publish
PreconditionFailed: type[Exception] = amqp.exceptions.PreconditionFailed
delayed_routing_key: Any = kombu.transport.native_delayed_delivery.calculate_routing_key
maybe_declare: Any = kombu.common.maybe_declare
dumps: Any = kombu.utils.json.dumps
loads: Any = kombu.utils.json.loads
