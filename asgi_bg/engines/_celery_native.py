"""Tasks of Celery's own: written down where they are added, read where they are sent."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec

from asgi_bg.engines._celery_api import CeleryTask, Signature, dumps, loads
from asgi_bg.engines.base import Message, Native
from asgi_bg.exceptions import EngineError, NotSerializable

_read_json = msgspec.json.Decoder().decode
_write_json = msgspec.json.Encoder().encode


def native_of(app: Any, func: object) -> Native | None:
    """Return a task or a signature of an app as it is stored; None if it is neither.

    Raises:
        EngineError: It is one of another app, or a whole workflow.
    """
    if isinstance(func, Signature):
        return _native_signature(func)
    if not isinstance(func, CeleryTask):
        return None
    task: Any = func
    if task.app is not app and app.tasks.get(task.name) is None:
        raise EngineError(
            f"the Celery task {task.name} is one of another app, {task.app!r}, and not of the "
            f"engine's, {app!r}; give CeleryEngine the app that the task belongs to"
        )
    return Native(task.name)


def _native_signature(signature: Any) -> Native:
    if signature.subtask_type is not None:
        raise EngineError(
            f"a {signature.subtask_type} of Celery's is several messages that depend on each "
            "other; add a signature of a single task, which may have link= to others, or start "
            "the workflow inside a task"
        )
    try:
        stored = _read_json(dumps(dict(signature)))
    except Exception as exc:
        raise NotSerializable(
            f"the signature {signature!r} cannot be written as JSON: {exc}"
        ) from exc
    return Native(signature.task, {"signature": stored})


def encode_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the arguments of a task of Celery's own as its own JSON.

    Raises:
        NotSerializable: Celery's JSON does not know one of them.
    """
    try:
        text: str = dumps([list(args), kwargs] if kwargs else [list(args)])
        loads(text)
    except Exception as exc:
        raise NotSerializable(
            f"the arguments of Celery's own task {name} cannot be written as Celery writes "
            f"JSON: {exc}"
        ) from exc
    return text


def native_call(
    app: Any, message: Message
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """Return the arguments of a job, and what else ``apply_async`` is to be given."""
    args, *rest = loads(message.call)
    kwargs: dict[str, Any] = rest[0] if rest else {}
    stored = (message.native or {}).get("signature")
    if stored is None:
        return tuple(args), kwargs, {}
    signature = Signature(loads(_write_json(stored)), app=app)
    merged = signature.clone(tuple(args), kwargs)
    options = dict(merged.options)
    for name in ("task_id", "retry", "retry_policy"):
        options.pop(name, None)
    countdown = options.pop("countdown", None)
    if countdown:  # it is counted from when the job was added, not from when it is sent
        added = datetime.fromtimestamp(message.queued_at, timezone.utc)
        options["eta"] = added + timedelta(seconds=countdown)
    return tuple(merged.args), dict(merged.kwargs), options
