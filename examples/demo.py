"""Shows what asgi_bg promises: real requests to a real server, and tasks after them.

    pip install 'asgi_bg[starlette]' uvicorn httpx
    python demo.py                  # here, or from above: python examples/demo.py
    python demo.py --oneshot        # ends by itself; status 1 if anything was not as told

Every promise is checked before it gets its mark, by what the client measured and what the
tasks themselves said about when and where they ran. The server is demo_server.py, or the
application given with --app, for which the promises may turn out to be broken.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import msgspec
from demo_server import Exchange

from asgi_bg import JobInfo, JobStatus

PORT = 8000
PATIENCE = 60.0
"""How many seconds to wait for what should take one or two."""


PLACES = {
    "loop": "on the event loop",
    "thread": "in a worker thread",
    "process": "in a worker process",
    "nowhere": "nowhere",
}


class DemoError(Exception):
    """The demo cannot go on."""


class Screen:
    """Prints to a terminal, in colours and with a line that moves, or to a pipe, plainly."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.has_colours = self.is_terminal and not os.environ.get("NO_COLOR")
        try:
            "✓✗█░→".encode(sys.stdout.encoding or "ascii")
            self.yes, self.no, self.full, self.empty, self.arrow = "✓✗█░→"
        except UnicodeEncodeError:
            self.yes, self.no, self.full, self.empty, self.arrow = "+", "X", "#", "-", ">"
        self._quarter = 0
        self._has_live_line = False

    def colour(self, code: int, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.has_colours else text

    def bold(self, text: str) -> str:
        return self.colour(1, text)

    def dim(self, text: str) -> str:
        return self.colour(2, text)

    def say(self, text: str = "") -> None:
        self.live("")
        print(text, flush=True)

    def live(self, text: str) -> None:
        """Show a line that the next one overwrites; only on a terminal."""
        if self.is_terminal and (text or self._has_live_line):
            sys.stdout.write("\r" + text.ljust(78)[:78] + ("" if text else "\r"))
            sys.stdout.flush()
            self._has_live_line = bool(text)

    def bar(self, fraction: float, text: str) -> str:
        done = round(fraction * 40)
        return f"    {self.full * done}{self.empty * (40 - done)} {fraction:4.0%}  {text}"

    def progress(self, fraction: float, text: str) -> None:
        """Show a bar: moving on a terminal, at every quarter in a pipe."""
        quarter = int(fraction * 4)
        if self.is_terminal:
            self.live(self.bar(fraction, text))
        elif quarter != self._quarter:
            self._quarter = quarter
            self.say(self.bar(fraction, text))


class Server:
    """The application under uvicorn, in a process of its own, and what it logs."""

    def __init__(self, app: str, port: int) -> None:
        command = ["uvicorn", app, "--app-dir", str(Path(__file__).parent), "--port", str(port)]
        self.process = subprocess.Popen(  # noqa: S603 - the demo's own command
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self.url: str | None = None
        self.is_echoing = False
        self._lines: list[str] = []
        self._told = threading.Event()  # it listens, or it has ended
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        with self.process.stdout as output:
            for line in output:
                self._lines.append(line)
                if self.is_echoing:
                    sys.stdout.write(f"    {line}")
                    sys.stdout.flush()
                found = re.search(r"Uvicorn running on (http://\S+)", line)
                if found:
                    self.url = found[1]
                    self._told.set()
        self._told.set()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def is_up(self) -> bool:
        """Wait until it listens; False if it has ended instead."""
        self._told.wait(PATIENCE)
        return self.url is not None

    def stop(self) -> bool:
        """End it as an operator would; return whether it ended in peace."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        finally:
            self._reader.join(PATIENCE)
        # Once it has shut down, uvicorn ends by the signal that asked it to.
        return self.process.returncode in (0, -signal.SIGTERM, -signal.SIGINT)


@contextmanager
def serving(app: str, screen: Screen) -> Generator[Server, None, None]:
    """Start the server on the usual port, or on a free one if that is taken."""
    for port in (PORT, 0):
        server = Server(app, port)
        try:
            if server.is_up():
                yield server
                return
        finally:
            server.stop()
        if port and "address already in use" in server.log:
            screen.say(f"Port {port} is taken, so another one it is.")
        else:
            break
    raise DemoError(f"the server did not start:\n{server.log}")


class Answer(msgspec.Struct):
    """What a client knows of the request that it has sent."""

    request_id: str
    received_at: float
    took: float


class Row(msgspec.Struct):
    """What the table at the end tells of a job."""

    job: JobInfo
    where: str
    after: float


class Demo:
    """Sends requests, follows their jobs, checks promises, and keeps the score."""

    def __init__(self, screen: Screen, server: Server, client: httpx.Client) -> None:
        self.screen = screen
        self.server = server
        self.client = client
        self.rows: list[Row] = []
        self.kept = 0
        self.broken = 0
        self._steps = 0

    # The parts of a step.

    def title(self, title: str, text: str) -> None:
        self._steps += 1
        self.screen.say()
        self.screen.say(self.screen.bold(f"{self._steps}. {title}"))
        self.screen.say(f"    {text}")

    def check(self, promise: str, is_kept: bool, seen: str) -> None:
        mark = self.screen.colour(32, self.screen.yes)
        if is_kept:
            self.kept += 1
        else:
            self.broken += 1
            mark = self.screen.colour(31, self.screen.no)
        self.screen.say(f"  {mark} {promise}")
        self.screen.say(self.screen.dim(f"    {seen}"))

    def post(self, path: str) -> Answer:
        request_id = f"{self._steps}{path.replace('/', '-')}"
        start = time.perf_counter()
        response = self.client.post(path, headers={"x-request-id": request_id})
        took = time.perf_counter() - start
        received_at = time.time()
        colour = 32 if response.is_success else 31
        status = self.screen.colour(colour, f"{response.status_code} {response.reason_phrase}")
        self.screen.say(f"    POST {path} {self.screen.arrow} {status} in {milliseconds(took)}")
        return Answer(request_id, received_at, took)

    def look(self, request_id: str) -> Exchange | None:
        """Ask the server what it knows of a request; None if it has not come there yet."""
        response = self.client.get(f"/requests/{request_id}")
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=Exchange)

    def follow(self, request_id: str, show: Callable[[JobInfo], None]) -> Exchange:
        """Watch a request until it is answered and its jobs have ended, and note them."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            exchange = self.look(request_id)
            if exchange is not None and exchange.answered_at is not None:
                if not exchange.jobs:
                    raise DemoError(f"the request {request_id} has left no job behind")
                if all(job.status.is_final for job in exchange.jobs):
                    self.rows += [self._row(job, exchange.answered_at) for job in exchange.jobs]
                    return exchange
                show(next(job for job in exchange.jobs if not job.status.is_final))
            time.sleep(0.03)
        raise DemoError(f"the jobs of {request_id} have not ended after {PATIENCE:g} seconds")

    def _row(self, job: JobInfo, answered_at: float) -> Row:
        """Conclude where and when a job first began from what it has logged there and then."""
        if not job.logs:
            return Row(job, "nowhere", 0.0)
        pid, _, thread = job.logs[0].message.partition(" ")
        if int(pid) != self.server.process.pid:
            where = "process"
        else:
            where = "loop" if thread == "MainThread" else "thread"
        return Row(job, where, job.logs[0].at.timestamp() - answered_at)

    # The steps.

    def run(self) -> None:
        self.show_kind(
            "An async task",
            "send_mails() takes a second, which it spends waiting.",
            "/mail",
            "loop",
        )
        self.show_kind(
            "A plain function that blocks",
            "resize_photo() takes a second, for which it blocks its thread.",
            "/photo",
            "thread",
        )
        self.show_kind(
            "Hard work",
            "draw_poster() keeps a processor busy, so it has executor='process'.",
            "/poster",
            "process",
        )
        self.show_retries()
        self.show_isolation()
        self.show_hang_up()

    def show_kind(self, title: str, text: str, path: str, where: str) -> None:
        self.title(title, text)
        answer = self.post(path)
        seen_running: list[JobInfo] = []

        def show(job: JobInfo) -> None:
            if job.status is JobStatus.running:
                seen_running.append(job)
            if job.progress is not None and job.progress < 1:
                self.screen.progress(job.progress, job.message)
            elif job.progress is None:
                passed = seconds(time.time() - answer.received_at)
                self.screen.live(f"    {short(job)} is {job.status}, {passed} after the answer")

        (job,) = self.follow(answer.request_id, show).jobs
        if job.progress is not None:
            self.screen.say(self.screen.bar(job.progress, job.message))
            self.screen.say()
            self.screen.say(self.screen.colour(36, str(job.result)))
        row = self.rows[-1]
        took = lasted(job)
        self.check(
            "The answer does not wait for the task.",
            answer.took < took,
            f"It took {milliseconds(answer.took)}, and the task {seconds(took)}.",
        )
        self.check(
            "The task runs after the response.",
            job.status is JobStatus.succeeded and row.after >= 0,
            f"It began {milliseconds(row.after)} after it, and {job.status}.",
        )
        self.check(
            f"It runs {PLACES[where]}, and the server goes on answering.",
            row.where == where and len(seen_running) >= 3,
            f"It ran {PLACES[row.where]}; {len(seen_running)} requests were answered meanwhile.",
        )
        if where == "process":
            moves = sorted({job.progress for job in seen_running if job.progress})
            self.check(
                "Its progress can be followed.",
                len(moves) >= 2 and job.progress == 1,
                f"It was seen at {', '.join(f'{move:.0%}' for move in moves[:9])} ... and done.",
            )

    def show_retries(self) -> None:
        self.title("Third time lucky", "charge_card() has retries=3, and fails twice.")
        told: list[str] = []

        def show(job: JobInfo) -> None:
            if job.error is not None and job.error not in told:
                told.append(job.error)
                self.screen.say(self.screen.dim(f"    {job.error}"))
            self.screen.live(f"    attempt {job.attempt} of {job.max_attempts}, {job.status}")

        answer = self.post("/payment")
        (job,) = self.follow(answer.request_id, show).jobs
        self.check(
            "A task that fails is tried again.",
            job.status is JobStatus.succeeded and job.attempt == 3 and len(job.logs) == 3,
            f"Attempt {job.attempt} {job.status}: {job.result or job.error}.",
        )
        began = [line.at.timestamp() - answer.received_at for line in job.logs]
        self.check(
            "Nobody waits for that.",
            len(began) > 1 and began[-1] > 0,
            f"Attempts began {', '.join(map(seconds, began))} after the client had its answer.",
        )

    def show_isolation(self) -> None:
        self.title(
            "One bad apple",
            "Of print_invoice(), tell_partner(), pack_parcel() the second always fails.",
        )
        tracebacks = self._count_tracebacks()
        answer = self.post("/order")
        jobs = self.follow(answer.request_id, lambda job: None).jobs
        expected = [JobStatus.succeeded, JobStatus.failed, JobStatus.succeeded]
        self.check(
            "A task that fails stops none behind it.",
            [job.status for job in jobs] == expected,
            f"They ended so: {', '.join(job.status for job in jobs)}.",
        )
        began = sorted((row.job for row in self.rows[-3:]), key=began_at)
        self.check(
            "The tasks of one request run in the order added.",
            began == jobs,
            f"They began so: {', '.join(short(job) for job in began)}.",
        )
        self._wait_for_log(lambda: self._count_tracebacks() > tracebacks)
        count = self._count_tracebacks() - tracebacks
        error = next((job.error for job in jobs if job.error), "nothing")
        self.check(
            "A failure is logged once, with its traceback.",
            count == 1,
            f"{count} in the server's log, with {error}.",
        )

    def show_hang_up(self) -> None:
        self.title(
            "A client that hangs up",
            "It asks to save a draft, and is gone before the answer.",
        )
        request_id = f"{self._steps}-draft"
        gone_at = self._hang_up("/draft", request_id)

        def show(job: JobInfo) -> None:
            self.screen.live(f"    {short(job)} is {job.status}")

        exchange = self.follow(request_id, show)
        early = (exchange.answered_at or 0.0) - gone_at
        self.check(
            "The client does not decide whether tasks run.",
            early > 0 and [job.status for job in exchange.jobs] == [JobStatus.succeeded],
            f"It left {seconds(early)} before the answer; "
            + ", ".join(f"{short(job)}() {job.status}" for job in exchange.jobs)
            + ".",
        )

    def _hang_up(self, path: str, request_id: str) -> float:
        """Send a request, leave when it has arrived, and return when that was."""
        url = self.client.base_url
        with socket.create_connection((url.host, url.port or 80), PATIENCE) as connection:
            head = f"POST {path} HTTP/1.1\r\nhost: demo\r\nx-request-id: {request_id}\r\n"
            connection.sendall(f"{head}content-length: 0\r\n\r\n".encode())
            deadline = time.monotonic() + PATIENCE
            while self.look(request_id) is None:
                if time.monotonic() > deadline:
                    raise DemoError(f"POST {path} has not arrived after {PATIENCE:g} seconds")
                time.sleep(0.01)
        self.screen.say(f"    POST {path} {self.screen.arrow} hung up")
        return time.time()

    def _count_tracebacks(self) -> int:
        return self.server.log.count("Traceback (most recent call last)")

    def _wait_for_log(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 5
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)

    # The end.

    def table(self) -> None:
        say, dim = self.screen.say, self.screen.dim
        say()
        say(self.screen.bold("What ran where"))
        say(dim("    job     task           where    attempts  after response  status"))
        for row in self.rows:
            job = row.job
            colour = 32 if job.status is JobStatus.succeeded else 31
            say(
                f"    {job.id[-6:]}  {short(job):<13}  {row.where:<7}  {job.attempt:>8}  "
                f"{milliseconds(row.after):>14}  {self.screen.colour(colour, job.status)}"
            )
        say()
        if self.broken:
            total = self.kept + self.broken
            say(self.screen.colour(31, f"{self.broken} of {total} promises were broken."))
        else:
            say(self.screen.colour(32, f"All {self.kept} promises were kept."))

    def stay(self) -> None:
        """Leave the server to whoever looks on, until Ctrl-C."""
        url = self.server.url
        say = self.screen.say
        say()
        say(f"The server goes on, at {self.screen.bold(str(url))}. In another terminal:")
        say(f"    curl -i -X POST {url}/poster")
        say(f"    curl -X POST {url}/payment")
        say(f"    curl {url}/jobs")
        say("Ctrl-C ends it. Its log:")
        self.server.is_echoing = True
        with suppress(KeyboardInterrupt):
            self.server.process.wait()
            raise DemoError("the server has ended by itself")
        say()


def short(job: JobInfo) -> str:
    return job.task.rpartition(":")[2]


def began_at(job: JobInfo) -> float:
    return job.logs[0].at.timestamp() if job.logs else 0.0


def lasted(job: JobInfo) -> float:
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return (job.finished_at - job.started_at).total_seconds()


def seconds(number: float) -> str:
    return f"{number:.2f} s"


def milliseconds(number: float) -> str:
    return f"{number * 1000:.1f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description="Shows asgi_bg at work, and checks it.")
    parser.add_argument(
        "--oneshot",
        action="store_true",
        default=os.environ.get("ONESHOT", "") not in ("", "0"),
        help="end when all has been shown, instead of going on serving until Ctrl-C",
    )
    parser.add_argument(
        "--app",
        default="demo_server:app",
        help="the application to show, instead of the one in demo_server.py",
    )
    options = parser.parse_args()
    # SIGTERM is taken as Ctrl-C is, so that no server is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen = Screen()
    try:
        return show(screen, options.app, is_oneshot=options.oneshot)
    except (DemoError, httpx.HTTPError) as exc:
        screen.say(screen.colour(31, f"{screen.no} {exc or repr(exc)}"))
        return 1
    except KeyboardInterrupt:
        screen.say("Interrupted.")
        return 130


def show(screen: Screen, app: str, *, is_oneshot: bool) -> int:
    screen.say(screen.bold("asgi_bg: the answer first, then the work"))
    with serving(app, screen) as server:
        screen.say(f"uvicorn serves {app} at {server.url}, as process {server.process.pid}.")
        with httpx.Client(base_url=str(server.url), timeout=PATIENCE, trust_env=False) as client:
            client.get("/jobs")  # connect, so that no step is timed with that
            demo = Demo(screen, server, client)
            demo.run()
        demo.table()
        if not is_oneshot:
            demo.stay()
        ended_well = server.stop()
    screen.say("The server has ended." if ended_well else f"The server ended badly:\n{server.log}")
    return 0 if ended_well and not demo.broken else 1


if __name__ == "__main__":
    sys.exit(main())
