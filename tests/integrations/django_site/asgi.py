"""As servers find it."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from asgi_bg.django import init_app

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.integrations.django_site.settings")

application = init_app(get_asgi_application())
