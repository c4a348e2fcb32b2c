"""Jobs as taskiq's messages, ours and those of its own tasks, and what it tells of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from taskiq import AsyncBroker, TaskiqMessage, TaskiqResult
from taskiq.decor import AsyncTaskiqDecoratedTask
from taskiq.kicker import AsyncKicker
from taskiq.labels import prepare_label

from asgi_bg._failures import describe_error
from asgi_bg._job import JobStatus
from asgi_bg.engines._taskiq_worker import RETRIES
from asgi_bg.engines.base import Message, Native, Report
from asgi_bg.exceptions import EngineError, NotSerializable


def taskiq_message(job: Message, labels: dict[str, Any]) -> TaskiqMessage:
    """Return a job as taskiq's own message.

    Args:
        job: The job.
        labels: What tells the broker of its options, if it is one of ours.
    """
    if job.native is not None:
        written = job.native["labels"]
        args, kwargs = job.arguments
    else:
        written = _written(labels)
        args, kwargs = [job.envelope], {}
    return TaskiqMessage(
        task_id=job.id,
        task_name=job.task,
        labels={label: text for label, (text, _) in written.items()},
        labels_types={label: kind for label, (_, kind) in written.items()},
        args=args,
        kwargs=kwargs,
    )


def native_of(broker: AsyncBroker, func: object) -> Native | None:
    """Return a task of taskiq's own, or a kicker of one, as it is stored; None if it is neither.

    Raises:
        EngineError: It is one of another broker, or is to have an id of its own.
    """
    kicker = _kicker_of(func)
    if kicker is None:
        return None
    name = kicker.task_name
    if kicker.broker is not broker:
        raise EngineError(
            f"the taskiq task {name} belongs to another broker than the engine's; "
            "use its kicker().with_broker(...)"
        )
    if kicker.custom_task_id is not None or kicker.custom_schedule_id is not None:
        raise EngineError(
            f"the taskiq task {name} is to have an id of its own, but the job's id will be "
            "its id; leave with_task_id() and with_schedule_id() out"
        )
    return Native(name, {"labels": _written(kicker.labels)})


def plain_call(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a task of taskiq's own as its formatter makes them plain.

    Raises:
        NotSerializable: It cannot.
    """
    try:
        message = TaskiqMessage(
            task_id="",
            task_name=name,
            labels={},
            args=[_prepared(value) for value in args],
            kwargs={key: _prepared(value) for key, value in kwargs.items()},
        )
        # The worker reads them by the function's annotations.
        plain = message.model_dump(mode="json", include={"args", "kwargs"})
    except Exception as exc:
        raise NotSerializable(
            f"the arguments of taskiq's own task {name} cannot be sent as JSON: {exc}"
        ) from exc
    return tuple(plain["args"]), plain["kwargs"]


def report_of(result: TaskiqResult[Any]) -> Report:
    """Return what is in a result backend as a report."""
    attempt = int(result.labels.get(RETRIES, 0)) + 1
    if not result.is_err:
        value = to_jsonable_python(result.return_value, bytes_mode="base64", serialize_unknown=True)
        return Report(status=JobStatus.succeeded, attempt=attempt, result=value)
    text = "it failed" if result.error is None else describe_error(result.error)
    return Report(status=JobStatus.failed, attempt=attempt, error=text)


def _kicker_of(func: Any) -> Any:
    """Return the `AsyncKicker` that sends a task of taskiq's own; None if it is none."""
    # Unlike `isinstance`, this does not make a generic type of it, with parameters unknown.
    if issubclass(type(func), AsyncTaskiqDecoratedTask):
        return func.kicker()
    return func if issubclass(type(func), AsyncKicker) else None


def _written(labels: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Return labels as they travel: as text, and of which type they were."""
    # Classes of exceptions are read off the task itself, and do not travel.
    return {
        label: prepare_label(value)
        for label, value in labels.items()
        if label != "types_of_exceptions"
    }


def _prepared(value: Any) -> Any:
    """Return an argument as `AsyncKicker.kiq` prepares it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
