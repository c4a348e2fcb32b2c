"""Its settings; what belongs to one run of a server is in a directory of that run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

DIRECTORY = os.environ.get("ASGI_BG_SERVER_TEST")

SECRET_KEY = "not a secret, as nobody but the tests is served"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
INSTALLED_APPS = ["tests.integrations.django_site"]
ROOT_URLCONF = "tests.integrations.django_site.urls"
MIDDLEWARE = ["asgi_bg.django.BackgroundTasksMiddleware"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(DIRECTORY, "db.sqlite3")) if DIRECTORY else ":memory:",
        "CONN_MAX_AGE": int(os.environ.get("ASGI_BG_CONN_MAX_AGE", "0")),
        "OPTIONS": {"timeout": 30},
    }
}
ASGI_BG: dict[str, Any] = {"max_threads": 4}
if DIRECTORY:
    ASGI_BG["journal"] = Path(DIRECTORY, "journal.sqlite3")
