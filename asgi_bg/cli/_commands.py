"""What all commands have in common: their options, and how they end."""

from __future__ import annotations

import functools
import inspect
import sqlite3
from collections.abc import Callable
from typing import Annotated, Any

import typer

from asgi_bg.cli._exits import FINE, INTERRUPTED, UNUSABLE, Problem
from asgi_bg.cli._opening import JOURNAL, KEYS, explain
from asgi_bg.cli._session import Session, Settings
from asgi_bg.cli._words import shown
from asgi_bg.exceptions import AsgiBgError, JobNotFound


def common(
    journal: Annotated[
        str | None,
        typer.Option(
            "--journal", metavar="FILE", help=f"The journal; else the environment's {JOURNAL}."
        ),
    ] = None,
    key_file: Annotated[
        str | None,
        typer.Option(
            "--key-file",
            metavar="FILE",
            help=f"Its keys in base64, one a line; else the environment's {KEYS}.",
        ),
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
    is_utc: Annotated[
        bool, typer.Option("--utc", help="Show instants in UTC, not in local time.")
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="Show no colours; so does NO_COLOR.")
    ] = False,
) -> Settings:
    """Return the options that every command has, and that may stand before it, too."""
    return Settings(
        journal=journal, key_file=key_file, is_json=is_json, is_utc=is_utc, no_color=no_color
    )


_COMMON = tuple(
    parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    for parameter in inspect.signature(common, eval_str=True).parameters.values()
)
_CONTEXT = inspect.Parameter(
    "ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
)


def with_common(function: Callable[..., None]) -> Any:
    """Return a function of settings as one for typer, with the common options."""
    return _with_options(function, lambda ctx, settings, own: function(ctx, settings, **own), 2)


def command(function: Callable[..., int | None]) -> Any:
    """Return a function of a session as one for typer, with the common options.

    Args:
        function: The command, of a `Session` and the options of its own; returns its exit
            code, or None if all is fine.
    """

    def call(ctx: typer.Context, settings: Settings, own: dict[str, Any]) -> None:
        before = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
        raise typer.Exit(_perform(settings.over(before), lambda session: function(session, **own)))

    return _with_options(function, call, 1)


def _with_options(
    function: Callable[..., Any],
    call: Callable[[typer.Context, Settings, dict[str, Any]], None],
    given: int,
) -> Any:
    """Return a function for typer that calls another one.

    Args:
        function: Has the options of its own, and the help.
        call: What to call, with these in a dict.
        given: How many parameters of ``function`` stand before them.
    """
    signature = inspect.signature(function, eval_str=True)
    own = tuple(
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(signature.parameters.values())[given:]
    )

    @functools.wraps(function)
    def run(ctx: typer.Context, **values: Any) -> None:
        shared = {parameter.name: values.pop(parameter.name) for parameter in _COMMON}
        call(ctx, common(**shared), values)

    # What typer reads in place of the function's own.
    run.__signature__ = inspect.Signature((_CONTEXT, *own, *_COMMON))  # type: ignore[attr-defined]
    return run


def _perform(settings: Settings, function: Callable[[Session], int | None]) -> int:
    """Run a command, and return its exit code; what went wrong is said in one message."""
    session = Session(settings)
    try:
        return function(session) or FINE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Problem as exc:
        text, code = str(exc), exc.code
    except JobNotFound as exc:
        text, code = str(exc), 1
    except ImportError as exc:  # what the keys need
        text, code = str(exc), UNUSABLE
    except AsgiBgError as exc:
        cause = exc.__cause__
        text = explain(session.path, cause) if isinstance(cause, sqlite3.Error) else str(exc)
        code = UNUSABLE
    except sqlite3.Error as exc:
        text, code = explain(session.path, exc), UNUSABLE
    finally:
        session.close()
    if "none of the journal's keys" in text:
        text += f"; here, give the key by --key-file FILE or {KEYS}"
    session.say(f"asgi-bg: {shown(text)}")
    return code
