"""Every example is started as the comment at its top says, and keeps what that promises."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import websockets.sync.client

from tests.helpers import wait_until

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
DEADLINE = 60.0

# In tests/test_demo.py, and in tests/web/test_status_example.py
TESTED_ELSEWHERE = {"demo", "demo_server", "upload"}
NAMES = sorted({file.stem for file in EXAMPLES.glob("*.py")} - TESTED_ELSEWHERE)


class Server:
    """An example under a server of its own, on a port that the system chooses."""

    def __init__(self, command: Sequence[str], folder: Path, temporary: Path) -> None:
        self.log_file = temporary / "server.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=folder,
                env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.client = httpx.Client(timeout=DEADLINE, trust_env=False)

    def wait(self) -> None:
        def address() -> str | None:
            assert self.process.poll() is None, self.log
            found = re.search(r"[Rr]unning on (http://127\.0\.0\.1:\d+)", self.log)
            return found and found[1]

        self.url = wait_until(address, "the server to listen")
        self.client.base_url = httpx.URL(self.url)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def get(self, path: str) -> Any:
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    def stop(self) -> str:
        """End the server by SIGTERM, and return all that it has logged."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(DEADLINE)
        assert self.process.returncode in (0, -signal.SIGTERM), self.log
        assert "Traceback" not in self.log, self.log
        return self.log

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start an example, by default from its folder under uvicorn."""
    with ExitStack() as stack:

        def start(
            target: str,
            *,
            folder: Path = EXAMPLES,
            options: Sequence[str] = ("--port", "0"),
            server: str = "uvicorn",
        ) -> Server:
            started = Server([server, target, *options], folder, tmp_path)
            stack.callback(started.close)
            started.wait()
            return started

        yield start


def test_every_example_has_a_test_and_says_how_to_run_it() -> None:
    """A new file in the folder is tested, and a newcomer can start it, or this fails."""
    tests = {name.removeprefix("test_") for name in globals()}
    for name in NAMES:
        text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        assert name in tests
        assert text.startswith('"""')
        assert re.search(r"^    pip install ", text, re.MULTILINE)
        assert re.search(rf"^    (uvicorn|hypercorn) {name}:app ", text, re.MULTILINE)
        assert f"examples.{name}:app" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_example_starts_from_above_its_folder_too(name: str, serve: Serve) -> None:
    """The second of the two ways in the comment; it starts, and ends in peace."""
    serve(f"examples.{name}:app", folder=ROOT).stop()


def test_raw_asgi(serve: Serve) -> None:
    """The webhook is accepted before it is shipped, and the retry ships it, once."""
    server = serve("raw_asgi:app")
    assert server.client.post("/", content=b"no JSON").status_code == 400
    response = server.client.post("/", json={"order": 7})
    assert (response.status_code, response.content) == (202, b"")
    assert wait_until(lambda: server.get("/"), "the shipment") == [{"order": 7}]
    log = server.stop()
    assert log.count("the warehouse is not answering; attempt 2 of 6 follows") == 1


def test_starlette_app(serve: Serve, tmp_path: Path) -> None:
    """The job can be followed from its location to its end, and one mail was sent."""
    server = serve("starlette_app:app")
    assert server.client.post("/signup").status_code == 400
    assert server.client.get("/jobs/unknown").status_code == 404
    response = server.client.post("/signup", params={"email": "ada@example.com"})
    assert response.status_code == 202
    location = response.headers["location"]
    assert response.json() == {"job": location}
    states = []

    def ended() -> bool:
        states.append(server.get(location))
        return states[-1]["status"] not in ("queued", "running")

    wait_until(ended, "the end of the job")
    name = location.rpartition("/")[2] + ".txt"
    assert states[-1] == {
        "status": "succeeded",
        "attempt": 2,
        "result": name,
        "error": None,
    }
    (mail,) = (tmp_path / "outbox").iterdir()
    assert mail.name == name
    assert mail.read_text() == "To: ada@example.com\nSubject: Welcome!\n"
    server.stop()


def test_mounted_sub_app(serve: Serve, tmp_path: Path) -> None:
    """The shop is as before, and searches are recorded, the last one while it shuts down."""
    server = serve("mounted_sub_app:app")
    assert server.client.get("/").text == "Socks, and a hat.\n"
    assert server.get("/api/search?q=socks") == ["blue socks", "red socks"]
    searches = tmp_path / "searches.txt"
    wait_until(lambda: searches.exists() and searches.read_text() == "socks\t2\n", "the record")
    assert server.get("/api/search?q=shoes") == []
    server.stop()
    assert searches.read_text() == "socks\t2\nshoes\t0\n"


@pytest.mark.parametrize(
    ("target", "folder"), [("fastapi_app:app", EXAMPLES), ("examples.fastapi_app:app", ROOT)]
)
def test_fastapi_app(target: str, folder: Path, serve: Serve) -> None:
    """The report is made in another process, which finds the task by either module's name;
    meanwhile the server tells how far it is."""
    server = serve(target, folder=folder)
    assert server.client.get("/jobs/unknown").status_code == 404
    response = server.client.post("/reports/2024", params={"orders": 300_000})
    assert response.status_code == 202
    job = response.json()["job"]
    states = []

    def ended() -> bool:
        states.append(server.get(f"/jobs/{job}"))
        return states[-1]["status"] not in ("queued", "running")

    wait_until(ended, "the report")
    assert states[-1]["status"] == "succeeded", states[-1]
    assert states[-1]["message"] == "December is done"
    assert list(states[-1]["result"])[::11] == ["Jan", "Dec"]
    assert states[0]["result"] is None
    progress = [state["progress"] or 0 for state in states]
    assert progress == sorted(progress)
    assert any(0 < fraction < 1 for fraction in progress), progress
    assert server.get("/audit") == ["127.0.0.1: POST /reports/2024"]
    server.stop()


def test_websocket_chat(serve: Serve) -> None:
    """What was queued in a session waits for its end, at whichever moment it was added."""
    server = serve("websocket_chat:app")
    chat = server.url.replace("http", "ws") + "/chat"

    def join(name: str) -> Any:
        return websockets.sync.client.connect(f"{chat}/{name}", proxy=None, open_timeout=DEADLINE)

    with join("bob") as bob:
        assert bob.recv(DEADLINE) == "* bob is here"
        with join("ada") as ada:
            assert ada.recv(DEADLINE) == "* ada is here"
            ada.send("hello")
            assert ada.recv(DEADLINE) == "ada: hello"
            with pytest.raises(websockets.InvalidStatus), join("ada"):
                pass
            ada.send("and goodbye")
            assert ada.recv(DEADLINE) == "ada: and goodbye"
            assert server.get("/transcripts") == {}
        heard = [bob.recv(DEADLINE) for _ in range(4)]
        assert heard == [
            "* ada is here",
            "ada: hello",
            "ada: and goodbye",
            "* ada has left",
        ]
        saved = wait_until(lambda: server.get("/transcripts"), "the transcript")
        assert saved == {"ada": "hello\nand goodbye"}
    server.stop()


def test_streaming_trailers(serve: Serve) -> None:
    """Without trailers the body ends the response, and the checksum is recorded after it."""
    server = serve("streaming_trailers:app")
    assert server.get("/") == []
    response = server.client.get("/export")
    assert response.status_code == 200
    assert "trailer" not in response.headers
    checksum = hashlib.sha256(response.content).hexdigest()
    assert wait_until(lambda: server.get("/"), "the checksum") == [checksum]
    server.stop()


def test_streaming_trailers_over_http2(serve: Serve) -> None:
    """With trailers they end the response: they carry the checksum that is recorded."""
    server = serve("streaming_trailers:app", server="hypercorn", options=("--bind", "127.0.0.1:0"))
    with Http2Client(server.url) as client:
        headers, body, trailers = client.get("/export")
        assert headers[":status"] == "200"
        assert headers["trailer"] == "checksum-sha256"
        assert len(body.splitlines()) == 1_000
        checksum = hashlib.sha256(body).hexdigest()
        assert trailers == {"checksum-sha256": checksum}

        def recorded() -> Any:
            return json.loads(client.get("/")[1])

        assert wait_until(recorded, "the checksum") == [checksum]
    server.stop()


class Http2Client:
    """The few lines of an HTTP/2 client that shows trailers, which httpx does not."""

    def __init__(self, url: str) -> None:
        self.authority = urlsplit(url).netloc
        host, _, port = self.authority.partition(":")
        self.socket = socket.create_connection((host, int(port)), DEADLINE)
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http.initiate_connection()

    def get(self, path: str) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """Return the headers, the body and the trailers of a response."""
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(
            stream,
            [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", self.authority),
                (":path", path),
                ("te", "trailers"),
            ],
            end_stream=True,
        )
        headers: dict[str, str] = {}
        trailers: dict[str, str] = {}
        body = b""
        while True:
            self.socket.sendall(self.http.data_to_send())
            data = self.socket.recv(65_536)
            assert data, "the server has closed the connection"
            for event in self.http.receive_data(data):
                match event:
                    case h2.events.ResponseReceived():
                        headers = dict(event.headers)
                    case h2.events.DataReceived():
                        body += event.data
                        self.http.acknowledge_received_data(event.flow_controlled_length, stream)
                    case h2.events.TrailersReceived():
                        trailers = dict(event.headers)
                    case h2.events.StreamReset():
                        raise AssertionError(f"the server has reset the stream: {event}")
                    case h2.events.StreamEnded():
                        self.socket.sendall(self.http.data_to_send())
                        return headers, body, trailers
                    case _:
                        pass

    def __enter__(self) -> Http2Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()


def test_dashboard(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders add jobs of all kinds, the dashboard shows them, and with a password asks for it."""
    monkeypatch.delenv("DASHBOARD_PASSWORD", raising=False)
    server = serve("dashboard:app")
    assert server.client.post("/orders?n=20").status_code == 202

    def has_all() -> bool:
        page = server.client.get("/jobs/list?status=failed").text
        return "KeyError" in page and "shop.resize_photos" in server.client.get("/jobs/").text

    wait_until(has_all, "a failed job")
    assert server.client.get("/", follow_redirects=True).url.path == "/jobs/"
    server.close()  # its log has the tracebacks of the jobs that fail
    monkeypatch.setenv("DASHBOARD_PASSWORD", "swordfish")
    server = serve("dashboard:app")
    assert server.client.get("/jobs/").status_code == 401
    assert server.client.get("/jobs/", auth=("ada", "wrong")).status_code == 401
    assert server.client.get("/jobs/", auth=("ada", "swordfish")).status_code == 200


def test_telemetry(serve: Serve) -> None:
    """An order's job is counted, and both of its attempts are spans."""
    server = serve("telemetry:app")
    assert server.client.post("/orders/7").status_code == 202
    done = 'asgi_bg_attempt_duration_seconds_count{outcome="succeeded",task="telemetry:ship"} 1.0'
    wait_until(lambda: done in server.client.get("/metrics").text, "the job to be counted")
    spans = '"name": "process telemetry:ship"'
    wait_until(lambda: server.log.count(spans) == 2, "both spans, which are printed now and then")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(DEADLINE)
    records = [line for line in server.log.splitlines() if "order 7 is on its way" in line]
    assert [json.loads(line)["attempt"] for line in records] == [2]


def test_litestar_app(serve: Serve) -> None:
    """The charge is tried again, from a journal, and the stock is counted by another task."""
    server = serve("litestar_app:app")
    assert server.client.get("/jobs/unknown").status_code == 404
    response = server.client.post("/orders/7")
    assert response.status_code == 202
    job = response.json()["job"]
    wait_until(lambda: server.get(f"/jobs/{job}")["status"] == "succeeded", "the payment")
    assert server.get(f"/jobs/{job}") == {
        "status": "succeeded",
        "attempt": 2,
        "result": "order 7 is paid",
    }
    wait_until(lambda: server.get("/stock") == {"socks": 99}, "the count")
    server.stop()


def test_quart_app(serve: Serve) -> None:
    """The mail is sent by a job that knows the application of its request."""
    server = serve("quart_app:app", server="hypercorn", options=("--bind", "127.0.0.1:0"))
    assert server.client.get("/jobs/unknown").status_code == 404
    response = server.client.post("/subscribers/ada@example.com")
    assert response.status_code == 202
    job = response.json()["job"]
    mail = "news@example.com to ada@example.com: welcome!"
    assert wait_until(lambda: server.get("/outbox"), "the mail") == [mail]
    wait_until(lambda: server.get(f"/jobs/{job}")["status"] == "succeeded", "the end of the job")
    assert server.get(f"/jobs/{job}") == {"status": "succeeded", "result": mail, "error": None}
    server.stop()


def test_django_app(serve: Serve) -> None:
    """A visit is in the database after its answer."""
    server = serve("django_app:app")
    assert len(server.get("/visit/ada")["job"]) == 32
    wait_until(lambda: server.get("/visits") == {"visits": ["ada"]}, "the visit")
    server.stop()


def test_falcon_app(serve: Serve) -> None:
    """The words are counted, and the location of the answer tells of them."""
    server = serve("falcon_app:app")
    response = server.client.post("/texts", content=b"to be or not to be")
    assert response.status_code == 202
    job = response.headers["location"]
    wait_until(lambda: server.get(job)["status"] == "succeeded", "the count")
    assert server.get(job)["result"] == {"to": 2, "be": 2, "or": 1}
    assert server.client.get("/jobs/unknown").status_code == 404
    server.stop()


def test_blacksheep_app(serve: Serve) -> None:
    """The kitchen hears of the order after the answer."""
    server = serve("blacksheep_app:app")
    assert len(server.client.post("/orders/soup").json()["job"]) == 32
    wait_until(lambda: server.get("/kitchen") == ["soup"], "the kitchen to hear")
    server.stop()
