"""Its one table."""

from __future__ import annotations

from django.db import models


class Note(models.Model):
    """A word that a view or a task has written."""

    word = models.CharField(max_length=200)
    thread = models.CharField(max_length=200, default="")

    class Meta:
        app_label = "django_site"
