"""The plugin, also where the package's entry points have not been installed anew."""

from __future__ import annotations

import pytest

from asgi_bg import pytest_plugin


def pytest_configure(config: pytest.Config) -> None:
    """Have the plugin once, however it gets here."""
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin, "asgi_bg")
