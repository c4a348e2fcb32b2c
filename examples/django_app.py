"""Django, in one file: a visit is answered at once, and written to the database afterwards.

    pip install 'asgi_bg[django]' uvicorn
    uvicorn django_app:app       # here, or from above: uvicorn examples.django_app:app

    curl localhost:8000/visit/ada    # {"job": ...}
    curl localhost:8000/visits       # who has been here

The task is plain and uses the ORM: it runs in a worker thread of the runner's own, and its
database connection is closed as Django closes that of a request. The database is the file
"visits.sqlite3" in the system's temporary folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="an example",  # noqa: S106
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(tempfile.gettempdir(), "visits.sqlite3"),
        }
    },
    ASGI_BG={"max_threads": 4},
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from asgi_bg import add_task  # noqa: E402
from asgi_bg.django import init_app  # noqa: E402


class Visit(models.Model):
    """Somebody was here."""

    name: models.Field[str, str] = models.CharField(max_length=100)

    class Meta:
        """Where the model belongs, as there is no app around it."""

        app_label = "visits"


if "visits_visit" not in connection.introspection.table_names():
    with connection.schema_editor() as editor:
        editor.create_model(Visit)
connection.close()


def record_visit(name: str) -> None:
    Visit(name=name).save()


def visit(request: HttpRequest, name: str) -> JsonResponse:
    job = add_task(record_visit, name)
    return JsonResponse({"job": job.id})


async def visits(request: HttpRequest) -> JsonResponse:
    names = [visit.name async for visit in Visit.objects.order_by("pk")]
    return JsonResponse({"visits": names})


urlpatterns = [path("visit/<name>", visit), path("visits", visits)]

app = init_app(get_asgi_application())
