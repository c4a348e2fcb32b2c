"""Its views."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from asgi_bg import add_task
from asgi_bg.django import get_runner, tasks_from
from asgi_bg.exceptions import JobNotFound
from tests.integrations.django_site import tasks
from tests.integrations.django_site.models import Note


def _deep_down(word: str) -> None:
    add_task(tasks.note, word)


def sync_view(request: HttpRequest) -> HttpResponse:
    tasks.visitor.set(request.GET["word"])
    _deep_down(request.GET["word"])
    add_task(tasks.note_visitor)
    return HttpResponse("ok")


async def async_view(request: HttpRequest) -> HttpResponse:
    job = tasks_from(request).add_task(tasks.anote, request.GET["word"])
    _deep_down(f"{request.GET['word']} plain")
    return HttpResponse(job.id)


def nested(request: HttpRequest) -> HttpResponse:
    """Sync above async above sync: each lends its thread, and takes it back."""

    async def add() -> None:
        add_task(tasks.anote, request.GET["word"])
        add_task(tasks.note_through_async, f"{request.GET['word']} through async")
        await sync_to_async(_deep_down)(f"{request.GET['word']} deep down")

    async_to_sync(add)()
    return HttpResponse("ok")


def odd(request: HttpRequest) -> HttpResponse:
    """A plain function that returns a coroutine: that is awaited, too."""
    word = request.GET["word"]
    add_task(lambda: tasks.anote(word))
    return HttpResponse("ok")


def failing_tasks(request: HttpRequest) -> HttpResponse:
    add_task(tasks.anote_and_fail, request.GET["word"])
    return HttpResponse("ok")


def not_found(request: HttpRequest) -> HttpResponse:
    add_task(tasks.note, request.GET["word"])
    raise Http404


def crash(request: HttpRequest) -> HttpResponse:
    add_task(tasks.note, request.GET["word"])
    raise RuntimeError("view")


def on_commit(request: HttpRequest) -> HttpResponse:
    word = request.GET["word"]
    with transaction.atomic():
        Note.objects.create(word=f"{word} row")
        transaction.on_commit(lambda: add_task(tasks.note, word))
        assert len(tasks_from(request)) == 0
    try:
        with transaction.atomic():
            transaction.on_commit(lambda: add_task(tasks.note, f"{word} rolled back"))
            raise ValueError
    except ValueError:
        pass
    return HttpResponse("ok")


def durable(request: HttpRequest) -> JsonResponse:
    which: Any = tasks.durable_anote if "async" in request.GET else tasks.durable_note
    return JsonResponse({"job": add_task(which, request.GET["word"]).id})


def flaky(request: HttpRequest) -> HttpResponse:
    return HttpResponse(add_task(tasks.flaky_note, request.GET["word"]).id)


def unfit(request: HttpRequest) -> HttpResponse:
    add_task(tasks.durable_note, object())  # type: ignore[arg-type]
    return HttpResponse("never")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        yield "one"
        yield "two"

    add_task(tasks.note, request.GET["word"])
    return StreamingHttpResponse(parts())


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield "one"
        add_task(tasks.note, request.GET["word"])
        yield "two"

    return StreamingHttpResponse(parts())


def words(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"words": list(Note.objects.order_by("id").values_list("word", flat=True))})


def connections(request: HttpRequest) -> JsonResponse:
    """How many times this process has the database open, and how many threads there are."""
    if settings.DATABASES["default"]["CONN_MAX_AGE"]:
        gc.collect()  # Django's own requests leave such connections to the garbage collector
    name = settings.DATABASES["default"]["NAME"]
    process = psutil.Process()
    files = [file.path for file in process.open_files() if file.path == name]
    return JsonResponse({"open": len(files), "threads": process.num_threads()})


async def job(request: HttpRequest, id: str) -> JsonResponse:
    try:
        info = await get_runner().info(id)
    except JobNotFound:
        raise Http404 from None
    return JsonResponse({"status": info.status, "attempt": info.attempt})
