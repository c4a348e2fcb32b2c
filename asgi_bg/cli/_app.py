"""The command line itself: its commands by name, and where it begins."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from asgi_bg import __version__
from asgi_bg.cli._changing import cancel_jobs, purge_jobs, retry_jobs
from asgi_bg.cli._checks import check_journal
from asgi_bg.cli._commands import command, with_common
from asgi_bg.cli._reading import list_jobs, show_job, show_stats
from asgi_bg.cli._session import Settings
from asgi_bg.cli._watch import watch_jobs

# Without rich's markup, as help goes to pipes and narrow terminals, too.
app = typer.Typer(
    name="asgi-bg",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 fine; 1 something was wrong, not found or could not be done; 2 wrong usage; "
        "3 the journal cannot be used; 130 interrupted by Ctrl-C; 143 ended by SIGTERM."
    ),
)


def _tell_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"asgi-bg {__version__}")
        raise typer.Exit


@app.callback()
@with_common
def begin(
    ctx: typer.Context,
    settings: Settings,
    is_version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version."),
    ] = False,
) -> None:
    """Look at the background jobs of a journal, and put things right."""
    del is_version  # told by its callback
    ctx.obj = settings


_COMMANDS: dict[str, Callable[..., int | None]] = {
    "list": list_jobs,
    "show": show_job,
    "stats": show_stats,
    "watch": watch_jobs,
    "retry": retry_jobs,
    "cancel": cancel_jobs,
    "purge": purge_jobs,
    "check": check_journal,
}

for _name, _function in _COMMANDS.items():
    app.command(_name)(command(_function))


def main() -> None:
    """Run the command with the arguments of the process, and end the process.

    The exit codes are those of `asgi_bg.cli._exits`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that has no such letter shows its number instead.
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="asgi-bg")
