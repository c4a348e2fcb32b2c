"""Jobs as messages of Celery: what ``apply_async`` makes of a call, without sending it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple

from asgi_bg.engines._celery_api import (
    Exchange,
    QueueNotFound,
    delayed_routing_key,
    detect_quorum_queues,
    maybe_list,
    maybe_make_aware,
)
from asgi_bg.engines._celery_native import native_call
from asgi_bg.engines._celery_options import options_of
from asgi_bg.engines.base import Message

DELAYED_EXCHANGE = "celery_delayed_27"
"""Where Celery puts messages off for quorum queues, which its workers declare."""

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
            args, kwargs, options = (message.envelope,), {}, options_of(message)
        else:
            args, kwargs, options = native_call(self._app, message)
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

    def _check_arguments(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        check: Callable[..., object] | None = getattr(task, "__header__", None)
        if check is not None and task.typing:
            try:
                check(*args, **kwargs)
            except TypeError as exc:
                raise Refused(str(exc)) from exc
