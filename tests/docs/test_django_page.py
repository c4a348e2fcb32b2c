"""The project of the page about Django, made as the page says, does what the page says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.docs_page import BLOCK, commands_of, write_files
from tests.helpers import need
from tests.servers.harness import UVICORN, Server

need("django")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrations" / "django.md").read_text()


class Project:
    """A project in a folder of its own.

    Attributes:
        folder: Where its ``manage.py`` is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run("-m", "django", "startproject", "mysite", ".")
        self.manage("startapp", "shop")
        write_files(PAGE, folder)

    def manage(self, *command: str) -> str:
        """Call ``manage.py``, and return what it has written."""
        return self._run("manage.py", *command)

    def _run(self, *command: str) -> str:
        ran = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The page's, with its database."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    made = Project(tmp_path)
    made.manage("migrate")
    return made


def post(server: Server, path: str, name: str) -> dict[str, str]:
    """What the page's ``curl -d name=NAME`` does."""
    data = urlencode({"name": name}).encode()
    with urlopen(f"http://127.0.0.1:{server.port}/{path}", data, timeout=30) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def test_every_block_has_its_file(tmp_path: Path) -> None:
    """So none of them is left out."""
    assert len(BLOCK.findall(PAGE)) == len(write_files(PAGE, tmp_path)) > 0


def test_commands_of_the_page_are_those_of_the_test() -> None:
    """What the page has its reader type is what is done here, in its order."""
    assert commands_of(PAGE)[1:] == [
        "python manage.py migrate",
        "uvicorn mysite.asgi:application",
        "curl -d name=ada http://127.0.0.1:8000/signup",
    ]


def test_project_is_sound_and_its_own_tests_pass(project: Project) -> None:
    """Those of the page, which speak of a mail after the answer and of one after the commit."""
    assert "no issues" in project.manage("check")
    ran = project.manage("test")
    assert "Ran 2 tests" in ran
    assert "OK" in ran.splitlines()


def test_command_adds_tasks_without_a_request(project: Project) -> None:
    """Its jobs have run when it ends."""
    project.manage("shell", "-c", USER)
    assert "mail to eve" in project.manage("remind")


USER = "from django.contrib.auth.models import User; User.objects.create_user('eve')"


def test_server_runs_jobs_and_survives(project: Project) -> None:
    """M4, J1, J3: after the answer, after the commit, and after a kill in the middle of a job."""
    server = Server(UVICORN, project.folder, "mysite.asgi:application")
    try:
        assert len(post(server, "signup", "ada")["job"]) == 32
        server.until_logged("mail to ada")
        assert post(server, "invite", "bob") == {"invited": "bob"}
        server.until_logged("mail to bob")
        assert len(post(server, "register", "cleo")["job"]) == 32
        server.kill()  # its mail takes five seconds
        assert "welcome, cleo" not in server.log()
        server = Server(UVICORN, project.folder, "mysite.asgi:application")
        server.until_logged("welcome, cleo")
    finally:
        server.stop()
