"""Runs the PostgreSQL that some of the peers need: its own, with its defaults, on the disk."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
USER = "postgres"
_PLACES = Path("/usr/lib/postgresql")
"""Where Debian has its programs, by version."""


def program(name: str) -> str | None:
    """Return the path of one of its programs, if it is there."""
    places = sorted(_PLACES.glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, places)]))


@contextmanager
def running(core: int) -> Generator[str]:
    """Run PostgreSQL on one core, with an empty database, and give its address.

    Raises:
        RuntimeError: It did not start.
    """
    initdb, postgres = program("initdb"), program("postgres")
    if initdb is None or postgres is None:
        raise RuntimeError("PostgreSQL is missing; get it with: apt-get install postgresql")
    # Not in the environment's folder: its user may not be allowed to go there.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        become = _becoming(directory)
        data = str(Path(directory, "data"))
        subprocess.run(
            (
                *(initdb, "--pgdata", data, "--username", USER),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C"),
            ),
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=directory,
            preexec_fn=become,
        )
        port = _free_port()
        with Path(directory, "log").open("w") as log:
            process = subprocess.Popen(
                (
                    *("taskset", "--cpu-list", str(core), postgres, "-D", data),
                    *("-p", str(port), "-c", "listen_addresses=127.0.0.1"),
                    *("-c", f"unix_socket_directories={directory}"),
                ),
                stdout=log,
                stderr=log,
                cwd=directory,
                preexec_fn=become,
            )
        try:
            url = f"postgresql://{USER}@127.0.0.1:{port}/postgres"
            _await_ready(process, url, Path(directory, "log"))
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _becoming(directory: str) -> Callable[[], None] | None:
    """Return what makes a process one of its user's: it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam(USER)
    shutil.chown(directory, user.pw_uid, user.pw_gid)

    def become() -> None:
        os.setgroups([user.pw_gid])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    return become


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    is_ready = program("pg_isready")
    assert is_ready is not None  # noqa: S101 - it is where the others are
    while subprocess.run((is_ready, "-q", "-d", url), check=False).returncode != 0:
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")
        time.sleep(0.05)
