"""A PostgreSQL of the tests' own, which keeps on disk what it has committed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.services.service import Service, need_program

USER = "postgres"


class PostgresServer(Service):
    """PostgreSQL with its own cluster; never run as root, which it refuses."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # Where its user may be, whoever owns the folder of the tests.
        self._home = Path(tempfile.mkdtemp(prefix="asgi-bg-pg-"))
        self._is_root = os.geteuid() == 0
        if self._is_root:
            shutil.chown(self._home, USER)

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    def launch(self) -> subprocess.Popen[bytes]:
        data = self._home / "data"
        if not data.exists():
            subprocess.run(
                (
                    *(self._program("initdb"), "--pgdata", data, "--username", USER),
                    *("--auth", "trust", "--encoding", "UTF8", "--locale", "C"),
                ),
                check=True,
                capture_output=True,
                preexec_fn=self._become,
                cwd=self._home,
            )
        (data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                (
                    *(self._program("postgres"), "-D", data, "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1"),
                    *("-c", f"unix_socket_directories={self._home}"),
                    *("-c", "max_connections=200"),
                    # In files of its own: a server that is killed leaves nothing in /dev/shm.
                    *("-c", "dynamic_shared_memory_type=mmap"),
                ),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=self._become,
                cwd=self._home,
            )

    def pids(self) -> list[int]:
        """The postmaster and all its children."""
        if self.process is None:
            return []
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        return [self.process.pid, *(child.pid for child in children)]

    def kill(self) -> None:
        processes = [psutil.Process(pid) for pid in self.pids() if psutil.pid_exists(pid)]
        super().kill()
        # While a child has its memory, a new one does not start.
        psutil.wait_procs(processes, timeout=10)

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            pass
        return (
            subprocess.run(
                (self._program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)),
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _program(self, name: str) -> str:
        places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        return need_program(name, "postgresql", *map(str, places))

    @property
    def _become(self) -> Callable[[], None] | None:
        if not self._is_root:
            return None
        user = pwd.getpwnam(USER)

        def become() -> None:
            os.setgroups([user.pw_gid])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)

        return become
