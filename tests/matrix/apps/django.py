"""With Django, whose ASGI application serves HTTP only."""

from __future__ import annotations

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from asgi_bg.django import init_app, tasks_from
from tests.matrix.call import OPTIONS, Call
from tests.servers.observed import Observed

settings.configure(
    ALLOWED_HOSTS=["*"],
    ASGI_BG=OPTIONS,
    ROOT_URLCONF=__name__,
    SECRET_KEY="for these tests alone",
)


def call_of(request: HttpRequest) -> Call:
    call = Call(request.META["QUERY_STRING"])
    call.add_with(tasks_from(request).add_task)
    return call


def plain(request: HttpRequest) -> HttpResponse:
    """In a worker thread, as Django runs plain functions."""
    return HttpResponse(call_of(request).id)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(call_of(request).chunks())


urlpatterns = [path("plain", plain), path("stream", stream)]

app = init_app(get_asgi_application())
served = Observed(app)
