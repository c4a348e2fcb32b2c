"""The servers and the frameworks of the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import cast

from tests.matrix.links import Link
from tests.servers.harness import (
    DAPHNE,
    GRANIAN,
    HYPERCORN,
    UVICORN,
    UVICORN_HTTPTOOLS,
    Kind,
)


@dataclass(frozen=True)
class Column:
    """A server as it is started for the matrix.

    Attributes:
        kind: How it is started.
        title: What the documentation calls it.
        link: Where the class of its clients is; imported when there is one to serve.
        options: More arguments for it.
        is_usual: Whether the default run has it, with `USUAL_FRAMEWORKS`.
    """

    kind: Kind
    title: str
    link: str = "links:Http1Link"
    options: tuple[str, ...] = ()
    is_usual: bool = True

    @property
    def name(self) -> str:
        return self.kind.name

    def connector(self) -> Callable[[int], Link]:
        """Return the class of the clients, to be called with a port."""
        module, _, name = self.link.partition(":")
        return cast("Callable[[int], Link]", getattr(import_module(f"tests.matrix.{module}"), name))


@dataclass(frozen=True)
class Row:
    """A framework of the matrix.

    Attributes:
        name: The module of its application, in `tests.matrix.apps`.
        title: What the documentation calls it.
        module: What must be importable.
    """

    name: str
    title: str
    module: str


def uvicorn(kind: Kind, loop: str, *options: str) -> Kind:
    """Return a uvicorn with another event loop, and other options."""
    http = kind.name.partition("-")[2]
    return replace(
        kind,
        name="-".join(["uvicorn", http, loop, *(["workers"] if options else [])]),
        modules=(*kind.modules, *(["uvloop"] if loop == "uvloop" else [])),
        command=(*kind.command, "--loop", loop, *options),
    )


GUNICORN_BIND = ("--bind", "127.0.0.1:{port}")
GUNICORN_COMMAND = ("-m", "gunicorn", "--keep-alive", "60", "--no-control-socket")

COLUMNS = [
    Column(uvicorn(UVICORN, "asyncio"), "uvicorn (h11, asyncio)"),
    Column(uvicorn(UVICORN, "uvloop"), "uvicorn (h11, uvloop)", is_usual=False),
    Column(uvicorn(UVICORN_HTTPTOOLS, "asyncio"), "uvicorn (httptools, asyncio)", is_usual=False),
    Column(uvicorn(UVICORN_HTTPTOOLS, "uvloop"), "uvicorn (httptools, uvloop)"),
    Column(
        replace(uvicorn(UVICORN_HTTPTOOLS, "uvloop", "--workers", "2"), exit_code=0),
        "uvicorn `--workers 2`",
    ),
    Column(HYPERCORN, "Hypercorn (HTTP/1.1)"),
    Column(replace(HYPERCORN, name="hypercorn-h2"), "Hypercorn (HTTP/2)", "http2:Http2Link"),
    Column(
        replace(
            HYPERCORN,
            name="hypercorn-h3",
            modules=("hypercorn", "aioquic"),
            # TCP at the same number, which tells when it is up.
            bind=("--quic-bind", "127.0.0.1:{port}", "--bind", "127.0.0.1:{port}"),
        ),
        "Hypercorn (HTTP/3)",
        "http3:Http3Link",
        ("--certfile", "certificate.pem", "--keyfile", "key.pem"),
    ),
    Column(GRANIAN, "Granian (HTTP/1.1)"),
    Column(
        replace(GRANIAN, name="granian-h2"),
        "Granian (HTTP/2)",
        "http2:Http2Link",
        ("--http", "2"),
        is_usual=False,
    ),
    Column(DAPHNE, "Daphne"),
    Column(
        Kind(
            "gunicorn-uvicorn",
            ("gunicorn", "uvicorn_worker"),
            (*GUNICORN_COMMAND, "--worker-class", "uvicorn_worker.UvicornWorker"),
            GUNICORN_BIND,
        ),
        "Gunicorn (uvicorn-worker)",
    ),
    Column(
        Kind(
            "gunicorn-asgi",
            ("gunicorn",),
            (*GUNICORN_COMMAND, "--worker-class", "asgi"),
            GUNICORN_BIND,
        ),
        "Gunicorn (`-k asgi`)",
    ),
    Column(
        Kind("mangum", ("mangum",), ("-m", "tests.matrix.lambda_runtime"), ("{port}",)),
        "AWS Lambda (Mangum)",
    ),
]

ROWS = [
    Row("raw", "ASGI", "asgi_bg"),
    Row("starlette", "Starlette", "starlette"),
    Row("fastapi", "FastAPI", "fastapi"),
    Row("litestar", "Litestar", "litestar"),
    Row("quart", "Quart", "quart"),
    Row("django", "Django", "django"),
    Row("falcon", "Falcon", "falcon"),
    Row("blacksheep", "BlackSheep", "blacksheep"),
]

USUAL_FRAMEWORKS = ("raw", "starlette", "django")
"""Those that the default run has on every usual server; it has all on the first server."""


def is_usual(row: Row, column: Column) -> bool:
    """Whether the default run has this pair."""
    return column is COLUMNS[0] or (column.is_usual and row.name in USUAL_FRAMEWORKS)
