"""Tasks: declared, changed by `using`, and checked."""

from __future__ import annotations

import asyncio
import functools
from datetime import datetime, timezone
from typing import Any

import pytest

from asgi_bg import Runner, Task, task
from asgi_bg._task import as_task
from asgi_bg.exceptions import MiddlewareNotInstalled

pytestmark = pytest.mark.anyio


def plain(a: int, b: int = 2, *rest: int, c: int, **more: int) -> str:
    """Add up."""
    return f"{a} {b} {rest} {c} {more}"


def two(a: int, b: int = 2) -> int:
    return a + b


def test_task_is_still_the_function() -> None:
    """Contract 2: still callable directly, with its name and documentation."""
    declared = task(plain)
    assert isinstance(declared, Task)
    assert declared(1, 5, 6, c=3, d=4) == "1 5 (6,) 3 {'d': 4}"
    assert declared.name == "tests.test_task:plain"
    assert declared.__name__ == "plain"  # type: ignore[attr-defined]
    assert declared.__doc__ == "Add up."
    assert repr(declared) == "<Task tests.test_task:plain>"


async def test_async_task_is_still_the_function() -> None:
    """Calling it gives the coroutine."""

    @task
    async def double(x: int) -> int:
        return 2 * x

    assert await double(4) == 8


def test_names_of_all_kinds_of_callables() -> None:
    """``module:qualname``, of the class where there is no function."""

    class Thing:
        def __call__(self) -> None: ...

        def method(self) -> None: ...

    here = "tests.test_task:test_names_of_all_kinds_of_callables.<locals>"
    assert as_task(Thing()).name == f"{here}.Thing"
    assert as_task(Thing().method).name == f"{here}.Thing.method"
    assert as_task(functools.partial(plain, 1)).name == "tests.test_task:plain"
    assert as_task(print).name == "builtins:print"
    assert task(name="another")(plain).name == "another"


def test_using_returns_a_changed_copy() -> None:
    """Options are values; the task itself stays as it is."""
    declared = task(retries=2, tags="mail")(plain)
    changed = declared.using(retries=5, timeout=1.5, key="k", name="other")
    assert (declared.options.retries, declared.options.timeout) == (2, None)
    assert (changed.options.retries, changed.options.timeout) == (5, 1.5)
    assert (changed.name, changed.options.key) == ("other", "k")
    assert changed.options.tags == ("mail",)
    assert changed.func is plain
    assert changed.declared


def test_task_declared_again_keeps_its_options() -> None:
    """`task(existing)` is the existing one, changed by what is said anew."""
    declared = task(retries=2)(two)
    again = task(timeout=3)(declared)
    assert (again.options.retries, again.options.timeout) == (2, 3)
    assert again.func is two
    assert again.name == declared.name


def test_functions_at_the_top_of_a_module_are_remembered_and_closures_are_not() -> None:
    """A remembered closure would keep a request alive for ever."""

    def closure() -> None: ...

    assert as_task(plain) is as_task(plain)
    assert as_task(closure) is not as_task(closure)
    declared = task(plain)
    assert as_task(declared) is declared


OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"retry": 3}, TypeError, "unknown task option 'retry'; there are name, concurrency"),
    ({"retries": -1}, ValueError, "retries must be 0 or more, got -1"),
    ({"retries": "3"}, TypeError, "retries must be a whole number, got '3'"),
    ({"retry_delay": -0.1}, ValueError, "retry_delay must be 0 or more seconds"),
    ({"retry_max_delay": None}, TypeError, "retry_max_delay must be a number of seconds"),
    ({"timeout": 0}, ValueError, "timeout must be more than 0 seconds, got 0"),
    ({"concurrency": 0}, ValueError, "concurrency must be 1 or more"),
    ({"executor": "fork"}, ValueError, "executor must be 'auto', 'thread' or 'process'"),
    ({"run_on": "never"}, ValueError, "run_on must be 'response', 'success' or 'always'"),
    ({"priority": 1.5}, TypeError, "priority must be a whole number"),
    ({"tags": 5}, TypeError, "tags must be a sequence of str, got 5"),
    ({"redact": ("card", 5)}, TypeError, "redact must be a sequence of str"),
    ({"retry_on": (ValueError, "x")}, TypeError, "retry_on must hold exception classes, got 'x'"),
    ({"durable": "yes"}, TypeError, "durable must be True or False"),
    ({"queue": 5}, TypeError, "queue must be a string or None"),
    ({"name": ""}, TypeError, "name must be a string that is not empty"),
    ({"delay": -1}, ValueError, "delay must be 0 or more seconds"),
    ({"run_at": "noon"}, TypeError, "run_at must be a datetime"),
    ({"run_at": datetime(2026, 1, 1)}, ValueError, "must know its time zone"),
    (
        {"delay": 1, "run_at": datetime(2026, 1, 1, tzinfo=timezone.utc)},
        ValueError,
        "exclude each other",
    ),
    ({"key": 7}, TypeError, "key must be a string or None"),
]


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS)
def test_bad_option_is_refused(options: Any, error: Any, message: str) -> None:
    """By name and value, where it is written."""
    with pytest.raises(error, match=message):
        task(plain).using(**options)


def test_single_word_or_class_is_taken_as_one() -> None:
    """``tags=("mail")`` is a string: the commonest slip."""
    declared = task(tags="mail", redact="card", retry_on=ValueError)(plain)  # type: ignore[arg-type]
    assert declared.options.tags == ("mail",)
    assert declared.options.redact == ("card",)
    assert declared.options.retry_on == (ValueError,)


def test_executor_for_an_async_function_is_refused() -> None:
    """It runs on the loop, and nowhere else."""

    async def on_loop() -> None: ...

    for executor in ("thread", "process"):
        with pytest.raises(ValueError, match="is async, so it runs on the event loop"):
            task(executor=executor)(on_loop)  # type: ignore[arg-type]


def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (5, "expected a function or another callable, got 5 of type int"),
        (None, "got None"),
        ("mail", "got 'mail'"),
        (_generator, "which yields"),
        (_async_generator, "which yields"),
    ],
)
async def test_what_is_no_function_is_refused(
    function: Any, message: str, make_runner: Any
) -> None:
    """At once, in the endpoint."""
    runner = await make_runner()
    with pytest.raises(TypeError, match=message):
        await runner.add_task(function)


async def test_coroutine_instead_of_a_function_is_refused_and_closed(make_runner: Any) -> None:
    """The commonest slip of all; closed, so that nothing complains of never awaiting it."""
    runner = await make_runner()
    with pytest.raises(TypeError, match=r"already called; .*add_task\(sleep, \.\.\.\)"):
        await runner.add_task(asyncio.sleep(1))  # type: ignore[arg-type]


CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any], str | None]] = [
    (plain, (1,), {"c": 3}, None),
    (plain, (1, 2, 3, 4), {"c": 3, "d": 4}, None),
    (plain, (1,), {}, "missing a required"),
    (plain, (), {"c": 3}, "missing a required"),
    (plain, (1,), {"a": 1, "c": 3}, "multiple values"),
    (two, (1,), {}, None),
    (two, (1, 2), {}, None),
    (two, (), {"a": 1}, None),
    (two, (), {}, "missing a required argument: 'a'"),
    (two, (1, 2, 3), {}, "too many positional"),
    (two, (1,), {"d": 3}, "unexpected keyword"),
    (functools.partial(two, 1), (), {}, None),
    (functools.partial(two, 1), (1, 2), {}, "too many positional"),
    (print, (1, 2, 3), {"sep": " "}, None),
    (dict, (), {"x": 1}, None),
    (len, (), {}, "missing a required"),
]


@pytest.mark.parametrize(("function", "args", "kwargs", "message"), CALLS)
async def test_wrong_arguments_are_found_in_the_endpoint(
    function: Any, args: Any, kwargs: Any, message: str | None
) -> None:
    """And right ones are never refused: what cannot be told passes."""
    runner = Runner()
    await runner.start()
    try:
        if message is None:
            await (await runner.add_task(function, *args, **kwargs)).result(5)
        else:
            with pytest.raises(TypeError, match=f"cannot be called with these.*{message}"):
                await runner.add_task(function, *args, **kwargs)
    finally:
        await runner.aclose()


async def test_decorator_that_changes_the_arguments_is_taken_at_its_word(
    make_runner: Any,
) -> None:
    """`functools.wraps` shows another signature than the one that a call meets."""

    def with_session(func: Any) -> Any:
        @functools.wraps(func)
        def wrapper(x: int) -> Any:
            return func(x, session="made here")

        return wrapper

    @with_session
    def save(x: int, session: str) -> str:
        return f"{x} {session}"

    runner = await make_runner()
    job = await runner.add_task(save, 3)
    assert await job.result(5) == "3 made here"
    with pytest.raises(TypeError):
        await runner.add_task(save, 3, session="another")


async def test_keywords_reach_the_function_whatever_their_names(make_runner: Any) -> None:
    """Our options and the user's arguments share no name."""

    def everything(**kwargs: int) -> dict[str, int]:
        return kwargs

    names = "func self args kwargs task retries timeout key name delay priority run_on executor"
    wanted = dict.fromkeys(names.split(), 1)
    runner = await make_runner()
    job = await runner.add_task(everything, **wanted)
    assert await job.result(5) == wanted


def test_add_task_of_the_package_takes_any_keyword_too() -> None:
    """As far as it gets without a request."""
    from asgi_bg import add_task

    with pytest.raises(MiddlewareNotInstalled):
        add_task(lambda **kwargs: None, func=1, self=2)
