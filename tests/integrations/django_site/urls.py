"""Where its views are."""

from __future__ import annotations

from django.urls import path

from tests.integrations.django_site import views

urlpatterns = [
    path("sync", views.sync_view),
    path("async", views.async_view),
    path("nested", views.nested),
    path("odd", views.odd),
    path("failing-tasks", views.failing_tasks),
    path("not-found", views.not_found),
    path("crash", views.crash),
    path("on-commit", views.on_commit),
    path("durable", views.durable),
    path("flaky", views.flaky),
    path("unfit", views.unfit),
    path("stream", views.stream),
    path("async-stream", views.async_stream),
    path("words", views.words),
    path("connections", views.connections),
    path("jobs/<id>", views.job),
]
