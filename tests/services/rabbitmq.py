"""A RabbitMQ server, with an Erlang port mapper of its own."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from tests.services.service import Service, free_port, need_program

CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.9
log.console = true
log.console.level = warning
log.file = false
"""

GREETING = b"AMQP\x00\x00\x09\x01"

_FRAME_METHOD = b"\x01"


class RabbitServer(Service):
    """A RabbitMQ server without plugins; the user is ``guest``, the virtual host ``/``.

    Args:
        folder: Where its files are.
        configuration: Further lines of its ``rabbitmq.conf``.
    """

    def __init__(self, folder: Path, configuration: str = "") -> None:
        super().__init__(folder)
        self._configuration = CONFIGURATION.format(port=self.port) + configuration
        # Debian's wrapper in /usr/sbin would change to the user and to the folders of the system.
        self.program = need_program(
            "rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin", "/usr/local/sbin"
        )
        self._mapper_program = need_program("epmd", "erlang-base")
        self._mapper_port = free_port()
        self._node_port = free_port()
        self._mapper: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def launch(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(self._configuration)
        environment = self._environment()
        with open(self.folder / "log", "ab") as log:
            if self._mapper is None:
                self._mapper = subprocess.Popen(
                    [self._mapper_program],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            return subprocess.Popen(
                [self.program],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(GREETING)
            return connection.recv(1) == _FRAME_METHOD

    def kill(self) -> None:
        super().kill()
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper.wait(10)
            self._mapper = None

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": folder,
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            # With input allowed, the shell becomes the server, whose pid is then known.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +A 8 +sbwt none"
            ),
            "RABBITMQ_NODENAME": f"asgi-bg-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/no-environment",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/no-plugins",
            "RABBITMQ_ENABLED_PLUGINS": "",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_LOGS": "-",
        }
