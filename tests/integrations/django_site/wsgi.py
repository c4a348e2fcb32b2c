"""As WSGI servers find it: `asgi_bg` is in the setting MIDDLEWARE only."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.integrations.django_site.settings")

application = get_wsgi_application()
