"""Jobs as messages of Celery: what ``apply_async`` makes of a call, without sending it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import msgspec

from asgi_bg._task import declared_task
from asgi_bg.engines._celery_api import (
    CeleryTask,
    Exchange,
    QueueNotFound,
    Signature,
    delayed_routing_key,
    detect_quorum_queues,
    dumps,
    loads,
    maybe_list,
    maybe_make_aware,
)
from asgi_bg.engines.base import Message, Native
from asgi_bg.exceptions import EngineError, NotSerializable

TIME_TO_CLEAN_UP = 5.0
"""How many seconds after its time is up the process of a task is killed, if it still goes on."""

TIME_TO_CANCEL = 2.0
"""How many seconds after its time is up an async task, which is cancelled then, is to have ended;
otherwise the worker's signal raises in whatever its event loop does."""

DELAYED_EXCHANGE = "celery_delayed_27"
"""Where Celery puts messages off for quorum queues, which its workers declare."""

SHOWN_LIMIT = 1024
"""How many characters of the arguments are shown; as many as Celery itself shows."""

_REDACTED = "***"

_read_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_json = msgspec.json.Decoder().decode
_write_json = msgspec.json.Encoder().encode


class Refused(Exception):
    """A job that Celery will never take; the text says why."""


class Composed(NamedTuple):
    """A message as `app.amqp.send_task_message` takes it."""

    name: str
    message: Any
    options: dict[str, Any]


class Composer:
    """Makes messages of jobs, by the configuration of an app.

    Args:
        app: The Celery app.
        driver: What its broker is: ``"amqp"``, ``"redis"`` or another kombu transport.
    """

    def __init__(self, app: Any, driver: str) -> None:
        self._app = app
        self._driver = driver

    def compose(self, message: Message) -> Composed:
        """Return the message of a job.

        Raises:
            Refused: Celery will never take it.
        """
        args: tuple[Any, ...]
        kwargs: dict[str, Any]
        task = self._app.tasks.get(message.task)
        if message.native is None:
            args, kwargs, options = (message.envelope,), {}, _options_of(message)
        else:
            args, kwargs, options = self._native_call(message)
            self._check_arguments(task, args, kwargs)
        if message.run_after is not None:
            options["eta"] = datetime.fromtimestamp(message.run_after, timezone.utc)
        if task is not None:
            options = {**task._get_exec_options(), **options}  # noqa: SLF001 - as apply_async does
            options.setdefault("ignore_result", task.ignore_result)
            if task.priority:
                options.setdefault("priority", task.priority)
            options.setdefault("shadow", task.shadow_name(args, kwargs, options))
        return self._compose(message, task, args, kwargs, options)

    def _compose(
        self,
        message: Message,
        task: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: dict[str, Any],
    ) -> Composed:
        """Do what `Celery.send_task` does before it sends."""
        amqp = self._app.amqp
        fields = {name: options.pop(name) for name in _FIELDS if name in options}
        try:
            options = amqp.router.route(options, message.task, args, kwargs, task)
        except QueueNotFound as exc:
            raise Refused(f"{exc}, and task_create_missing_queues is off") from exc
        if fields.get("eta") is not None:
            self._put_off(fields["eta"], options)
        if fields.get("expires") is not None:
            options["expiration"] = max(0.0, self._seconds_until(fields["expires"]))
        made = amqp.create_task_message(
            message.id,
            message.task,
            args,
            kwargs,
            create_sent_event=self._app.conf.task_send_sent_event,
            reply_to=fields.pop("reply_to", None) or self._app.thread_oid,
            callbacks=maybe_list(fields.pop("link", None)),
            errbacks=maybe_list(fields.pop("link_error", None)),
            **fields,
            **options,
        )
        for stamp in options.pop("stamped_headers", None) or ():
            options.pop(stamp)
        return Composed(message.task, made, options)

    def _put_off(self, eta: Any, options: dict[str, Any]) -> None:
        """Have RabbitMQ itself put off what goes to a quorum queue, as Celery does."""
        if not detect_quorum_queues(self._app, self._driver)[0]:
            return
        queue = options.get("queue")
        if (queue.exchange.type if queue else options.get("exchange_type")) == "direct":
            return
        seconds = int(self._seconds_until(eta))
        if seconds > 0:
            key = queue.routing_key if queue else options["routing_key"]
            options.pop("queue", None)
            options["routing_key"] = delayed_routing_key(seconds, key)
            options["exchange"] = Exchange(DELAYED_EXCHANGE, type="topic")

    def _seconds_until(self, instant: Any) -> float:
        if isinstance(instant, (int, float)):
            return float(instant)
        if isinstance(instant, str):
            instant = datetime.fromisoformat(instant)
        seconds: float = (maybe_make_aware(instant) - self._app.now()).total_seconds()
        return seconds

    def _native_call(
        self, message: Message
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """Return the arguments and options of a task of Celery's own."""
        args, *rest = loads(message.call)
        kwargs: dict[str, Any] = rest[0] if rest else {}
        stored = (message.native or {}).get("signature")
        if stored is None:
            return tuple(args), kwargs, {}
        signature = Signature(loads(_write_json(stored)), app=self._app)
        merged = signature.clone(tuple(args), kwargs)
        options = dict(merged.options)
        for name in ("task_id", "retry", "retry_policy"):
            options.pop(name, None)
        countdown = options.pop("countdown", None)
        if countdown:  # it is counted from when the job was added, not from when it is sent
            added = datetime.fromtimestamp(message.queued_at, timezone.utc)
            options["eta"] = added + timedelta(seconds=countdown)
        return tuple(merged.args), dict(merged.kwargs), options

    def _check_arguments(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check: Callable[..., object] | None = getattr(task, "__header__", None)
        if check is not None and task.typing:
            try:
                check(*args, **kwargs)
            except TypeError as exc:
                raise Refused(str(exc)) from exc


def _options_of(message: Message) -> dict[str, Any]:
    """Return the options of a task of ours as those of ``apply_async``."""
    shown, shown_kwargs = shown_arguments(message)
    options: dict[str, Any] = {
        "serializer": "json",
        "argsrepr": shown,
        "kwargsrepr": shown_kwargs,
    }
    if message.options.queue is not None:
        options["queue"] = message.options.queue
    if message.priority:
        options["priority"] = message.priority
    timeout = message.options.timeout
    if timeout is not None:
        declared = declared_task(message.task)
        is_async = declared is not None and declared.place == "loop"
        options["soft_time_limit"] = timeout + (TIME_TO_CANCEL if is_async else 0)
        options["time_limit"] = timeout + TIME_TO_CLEAN_UP
    return options


def shown_arguments(message: Message) -> tuple[str, str]:
    """Return the arguments as Celery's logs and monitors show them, without redacted values."""
    if message.options.redact:
        args, kwargs = message.arguments
        hidden = set(message.options.redact)
        names = _positional_names(message.task, len(args))
        args = [
            _REDACTED if name is None or name in hidden else value
            for name, value in zip(names, args, strict=True)
        ]
        kwargs = {name: _REDACTED if name in hidden else kwargs[name] for name in kwargs}
        shown, *more = (_write_json(part).decode() for part in (args, kwargs))
    else:
        shown, *more = (bytes(part).decode() for part in _read_parts(message.call))
    return _shorten(shown), _shorten(more[0]) if more else "{}"


def _positional_names(task: str, count: int) -> list[str | None]:
    """Return what the positional arguments of a task are called, as far as that is known."""
    declared = declared_task(task)
    names: list[str | None] = []
    if declared is not None:
        for parameter in inspect.signature(declared.func).parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                names += [parameter.name] * (count - len(names))
            elif parameter.kind in (
                parameter.POSITIONAL_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            ):
                names.append(parameter.name)
    return (names + [None] * count)[:count]


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_LIMIT else f"{text[: SHOWN_LIMIT - 3]}..."


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


_FIELDS = (
    "eta",
    "countdown",
    "group_id",
    "group_index",
    "expires",
    "retries",
    "chord",
    "link",
    "link_error",
    "reply_to",
    "time_limit",
    "soft_time_limit",
    "root_id",
    "parent_id",
    "shadow",
    "chain",
    "ignore_result",
    "replaced_task_nesting",
)
"""What of the options of ``apply_async`` is written into a message, rather than deciding on
its way."""
