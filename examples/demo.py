"""Kills a server in the middle of its work, and shows that no job it accepted is lost.

    pip install 'asgi_bg[starlette]' uvicorn httpx
    python demo.py                  # here, or from above: python examples/demo.py
    python demo.py --oneshot        # ends by itself; status 1 if anything was not as told

What is shown is checked, by what the clients were answered and by what the tasks wrote down
about when and where they ran. The server is demo_server.py, or the application given with
--app, for which the promises may turn out to be broken.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from asgi_bg import JobInfo, JobStatus

PORT = 8000
PATIENCE = 60.0
"""How many seconds to wait for what should take a few."""

CLIENTS = 4
"""How many clients send one request after another until the server is gone."""

DOUBT = 0.1
"""How long before the kill, in seconds, a task must have returned to be surely on record."""

ORDERS = {
    "/poster": "computes, in a process",
    "/photo": "blocks for 1 s, in a thread",
    "/mail": "async, on the event loop",
    "/payment": "fails twice, retries=3",
    "/reminder": "put off, delay=4",
}
SENT = ("/poster", "/photo", "/photo", "/payment", "/mail", "/mail", "/payment", "/reminder")

T = TypeVar("T")


class DemoError(Exception):
    """The demo cannot go on."""


class Screen:
    """Prints to a terminal, in colours and with a line that moves, or to a pipe, plainly."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.has_colours = self.is_terminal and not os.environ.get("NO_COLOR")
        try:
            "✓✗█▒░→".encode(sys.stdout.encoding or "ascii")
            marks = tuple("✓✗█▒░→")
        except UnicodeEncodeError:
            marks = tuple("+X#=->")
        self.yes, self.no, self.full, self.half, self.empty, self.arrow = marks
        self._has_live_line = False

    def colour(self, code: int, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.has_colours else text

    def bold(self, text: str) -> str:
        return self.colour(1, text)

    def dim(self, text: str) -> str:
        return self.colour(2, text)

    def green(self, text: str) -> str:
        return self.colour(32, text)

    def red(self, text: str) -> str:
        return self.colour(31, text)

    def say(self, text: str = "") -> None:
        self.live("")
        print(text, flush=True)

    def live(self, text: str) -> None:
        """Show a line that the next one overwrites; only on a terminal."""
        if self.is_terminal and (text or self._has_live_line):
            sys.stdout.write("\r" + text.ljust(78)[:78] + ("" if text else "\r"))
            sys.stdout.flush()
            self._has_live_line = bool(text)

    def bar(self, ended: int, running: int, total: int) -> str:
        """Draw how many jobs have ended, are running, and wait."""
        width = 32
        first = width * ended // max(total, 1)
        second = width * (ended + running) // max(total, 1) - first
        return self.full * first + self.half * second + self.empty * (width - first - second)


@contextmanager
def undisturbed() -> Generator[None, None, None]:
    """Put an interrupt off until a process has been started, so that none is left behind."""
    came: list[int] = []
    former = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


class Server:
    """The application under uvicorn, in a process of its own, and what it logs."""

    def __init__(self, app: str, port: int, directory: Path) -> None:
        command = ["uvicorn", app, "--app-dir", str(Path(__file__).parent), "--port", str(port)]
        self.process = subprocess.Popen(  # noqa: S603 - the demo's own command
            [sys.executable, "-m", *command],
            env={**os.environ, "DEMO_DIRECTORY": str(directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that it can be killed with its worker processes
        )
        self.pid = self.process.pid
        self.url = ""
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
        return bool(self.url)

    def kill(self) -> float:
        """End it, and its worker processes, as nobody would; return when that was."""
        killed_at = time.time()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        return killed_at

    def stop(self) -> bool:
        """End it as an operator would; return whether it ended in peace."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        finally:
            self._reader.join(PATIENCE)
        # Once it has shut down, uvicorn ends by the signal that asked it to.
        return self.process.returncode in (0, -signal.SIGTERM, -signal.SIGINT)


class Answer(msgspec.Struct):
    """What a client was told of the job that its request led to."""

    job: str
    task: str
    process: int
    took: float = 0.0


class Attempt(msgspec.Struct):
    """What a task wrote down: the process, when it began, and when it returned or raised."""

    process: int
    began: float
    ended: float | None = None
    failed: float | None = None

    @property
    def is_open(self) -> bool:
        return self.ended is None and self.failed is None


Notes = dict[str, list[Attempt]]


def read_notebook(file: Path) -> Notes:
    """Return the attempts of each job, by its id, in the order in which they began."""
    notes: Notes = {}
    for line in file.read_text().splitlines():
        word, job, process, instant = line.split()
        attempts = notes.setdefault(job, [])
        if word == "begins":
            attempts.append(Attempt(int(process), float(instant)))
        else:
            attempt = next(a for a in reversed(attempts) if a.process == int(process))
            if word == "ends":
                attempt.ended = float(instant)
            else:
                attempt.failed = float(instant)
    return notes


def has_ended(attempts: Iterable[Attempt]) -> bool:
    return any(attempt.ended is not None for attempt in attempts)


class Crowd:
    """Clients that send one request after another, and note what they were answered."""

    def __init__(self, url: str) -> None:
        self.answers: list[Answer] = []
        self.unanswered = 0
        self._url = f"{url}/visit"
        self._client = httpx.Client(timeout=PATIENCE, trust_env=False)
        self._is_over = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._is_over:
            try:
                response = self._client.post(self._url)
            except httpx.TransportError:
                with self._lock:
                    self.unanswered += 1
                return
            if response.is_success:  # anything else promises nothing
                answer = msgspec.json.decode(response.content, type=Answer)
                with self._lock:
                    self.answers.append(answer)
            time.sleep(0.02)

    def leave(self) -> None:
        """Wait until all of them have gone."""
        self._is_over = True
        for thread in self._threads:
            thread.join(PATIENCE)
        self._client.close()


class Demo:
    """Sends requests, kills the server, starts it again, and counts."""

    def __init__(self, screen: Screen, app: str, directory: Path) -> None:
        self.screen = screen
        self.broken = 0
        self.answers: list[Answer] = []
        self._app = app
        self._directory = directory
        self._server: Server | None = None
        self._client = httpx.Client(timeout=PATIENCE, trust_env=False)
        self._steps = 0

    # The parts of a step.

    def title(self, title: str, text: str) -> None:
        self._steps += 1
        self.screen.say()
        self.screen.say(self.screen.bold(f"{self._steps}. {title}"))
        self.screen.say(f"    {text}")

    def check(self, promise: str, is_kept: bool, seen: str) -> None:
        mark = self.screen.green(self.screen.yes)
        if not is_kept:
            self.broken += 1
            mark = self.screen.red(self.screen.no)
        self.screen.say(f"  {mark} {promise}")
        self.screen.say(self.screen.dim(f"    {seen}"))

    @property
    def server(self) -> Server:
        assert self._server is not None  # noqa: S101 - all begins with starting it
        return self._server

    def start(self) -> None:
        """Start the server: on the usual port, on a free one, or where it was."""
        ports = (PORT, 0)
        if self._server is not None:
            port = httpx.URL(self._server.url).port or 80
            ports = (port, port)
        for port in ports:
            with undisturbed():
                self._server = server = Server(self._app, port, self._directory)
            if server.is_up():
                return
            server.stop()
            if "address already in use" not in server.log or port == ports[1]:
                raise DemoError(f"the server did not start:\n{server.log}")
            self.screen.say(f"Port {port} is taken, so another one it is.")

    def close(self) -> None:
        self._client.close()
        if self._server is not None:
            self._server.stop()

    def get(self, path: str, kind: type[T]) -> T:
        response = self._client.get(f"{self.server.url}{path}")
        response.raise_for_status()
        found: T = msgspec.json.decode(response.content, type=kind)
        return found

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise DemoError(f"{what} has not come after {PATIENCE:g} seconds")
            time.sleep(0.05)

    def notes(self) -> Notes:
        return read_notebook(self._directory / "notebook")

    # The steps.

    def run(self) -> None:
        self.start()
        poster = self.take_orders()
        crowd, killed_at = self.kill_in_the_middle(poster)
        self.answers += crowd.answers
        first = self.server.pid
        self.start_again(first, poster)
        self.judge(first, killed_at)

    def take_orders(self) -> str:
        say, screen = self.screen.say, self.screen
        self.title(
            "Some orders",
            f"Process {self.server.pid} serves {self._app}, with journal='jobs.db'.",
        )
        told: set[str] = set()
        self.get("/stats", dict[str, int])  # connect, so that no answer is timed with that
        for path in SENT:
            start = time.perf_counter()
            response = self._client.post(f"{self.server.url}{path}")
            took = time.perf_counter() - start
            response.raise_for_status()
            answer = msgspec.json.decode(response.content, type=Answer)
            answer.took = took
            self.answers.append(answer)
            status = screen.green(f"{response.status_code} {response.reason_phrase}")
            about = "" if path in told else f"  {screen.dim(ORDERS[path])}"
            told.add(path)
            say(f"    POST {path:<9} {screen.arrow} {status} in {milliseconds(took):>8}{about}")
        return self.answers[0].job

    def kill_in_the_middle(self, poster: str) -> tuple[Crowd, float]:
        server = self.server
        self.title("A crowd, and kill -9", f"{CLIENTS} clients send one request after another.")
        crowd = Crowd(server.url)
        seen: list[float] = [0.0]

        def is_in_the_middle() -> bool:
            seen[0] = self.get(f"/jobs/{poster}", JobInfo).progress or 0.0
            self.screen.live(
                f"    {self._state(self.answers + crowd.answers)}, poster at {seen[0]:.0%}"
            )
            return seen[0] >= 0.3 and len(crowd.answers) >= 20

        self.wait_until(is_in_the_middle, "the middle of the poster")
        killed_at = server.kill()
        crowd.leave()
        say = self.screen.say
        say(self.screen.red(f"    kill -9 {server.pid}") + f", with the poster at {seen[0]:.0%}")
        say(f"    {self._state(self.answers + crowd.answers)}")
        say(f"    {crowd.unanswered} of the clients got no answer, so they were promised nothing.")
        return crowd, killed_at

    def _state(self, answers: list[Answer]) -> str:
        notes = self.notes()
        ended = sum(has_ended(notes.get(answer.job, ())) for answer in answers)
        pid = self.server.pid
        running = sum(
            any(attempt.process == pid and attempt.is_open for attempt in attempts[-1:])
            for attempts in (notes.get(answer.job, []) for answer in answers)
        )
        bar = self.screen.bar(ended, running, len(answers))
        return f"{bar}  {len(answers)} accepted, {ended} run"

    def start_again(self, first: int, poster: str) -> None:
        say = self.screen.say
        self.title("The same command again", f"Process {first} is dead. Nobody sends anything.")
        self.start()
        say(f"    Process {self.server.pid} finds the jobs in the file.")
        quarters: set[int] = set()

        def is_over() -> bool:
            stats = self.get("/stats", dict[str, int])
            state = self._state(self.answers)
            quarter = state.count(self.screen.full) // 8
            if not self.screen.is_terminal and quarter not in quarters:
                quarters.add(quarter)
                say(f"    {state}")
            self.screen.live(f"    {state}")
            return stats["queued"] + stats["running"] == 0

        self.wait_until(is_over, "the end of the jobs")
        if self.screen.is_terminal:
            say(f"    {self._state(self.answers)}")
        info = self.jobs().get(poster)
        if info is not None and isinstance(info.result, str):
            say()
            say(self.screen.colour(36, info.result))

    def jobs(self) -> dict[str, JobInfo]:
        return {job.id: job for job in self.get("/jobs?limit=100000", list[JobInfo])}

    # The end.

    def judge(self, first: int, killed_at: float) -> None:
        notes, jobs = self.notes(), self.jobs()
        self.table(notes, jobs)
        say = self.screen.say
        say()
        slowest = max(answer.took for answer in self.answers)
        self.check(
            "No answer waits for its task, though the job is on disk before it.",
            slowest < 1,
            f"The slowest of the {len(SENT)} answers above took {milliseconds(slowest)}.",
        )
        early = [
            attempts
            for answer in self.answers
            for attempts in [notes.get(answer.job, [])]
            if any(a.ended is not None and a.ended < killed_at - DOUBT for a in attempts)
        ]
        again = sum(len([a for a in attempts if a.ended is not None]) > 1 for attempts in early)
        self.check(
            "What had ended before the kill does not run again.",
            not again,
            f"{again} of those {len(early)} jobs did.",
        )
        cut_off = [
            answer.job
            for answer in self.answers
            if any(a.process == first and a.is_open for a in notes.get(answer.job, ()))
        ]
        resumed = sum(job in jobs and jobs[job].attempt > 1 for job in cut_off)
        self.check(
            "What was cut off runs again: the same job, and its next attempt.",
            resumed == len(cut_off),
            f"{resumed} of those {len(cut_off)} jobs did.",
        )
        self.verdict(notes, jobs)

    def verdict(self, notes: Notes, jobs: dict[str, JobInfo]) -> None:
        run = sum(
            has_ended(notes.get(answer.job, ()))
            and answer.job in jobs
            and jobs[answer.job].status is JobStatus.succeeded
            for answer in self.answers
        )
        lost = len(self.answers) - run
        self.broken += lost > 0
        told = f"{len(self.answers)} accepted, {run} run, {lost} lost"
        colour = self.screen.red if lost else self.screen.green
        self.screen.say()
        self.screen.say(colour(self.screen.bold(told)))

    def table(self, notes: Notes, jobs: dict[str, JobInfo]) -> None:
        say, screen = self.screen.say, self.screen
        say()
        say(screen.bold("What ran where"))
        say(
            screen.dim("    job     task           accepted by  ran in            attempts  status")
        )
        shown = [self._row(answer, notes, jobs) for answer in self.answers]
        for answer, row in zip(self.answers[: len(SENT)], shown, strict=False):
            say(f"    {answer.job[-6:]}  {row}")
        for row, count in Counter(shown[len(SENT) :]).most_common():
            say(f"    x{count:<5}  {row}")

    def _row(self, answer: Answer, notes: Notes, jobs: dict[str, JobInfo]) -> str:
        job = jobs.get(answer.job)
        processes: dict[int, bool] = {}
        for attempt in notes.get(answer.job, ()):
            processes[attempt.process] = not attempt.is_open
        words = [
            f"{pid}" if ended else f"{pid}{self.screen.no}" for pid, ended in processes.items()
        ]
        ran_in = " ".join(words) or "nowhere"
        status = self.screen.red("lost")
        if job is not None:
            is_well = job.status is JobStatus.succeeded
            status = (self.screen.green if is_well else self.screen.red)(job.status)
        attempts = "-" if job is None else str(job.attempt)
        return f"{answer.task:<13}  {answer.process:<11}  {ran_in:<16}  {attempts:>8}  {status}"

    def stay(self) -> None:
        """Leave the server to whoever looks on, until Ctrl-C; and start it when it dies."""
        say = self.screen.say
        say()
        say(f"The server goes on, at {self.screen.bold(self.server.url)}. In another terminal:")
        say(f"    curl -X POST {self.server.url}/poster")
        say(f"    curl {self.server.url}/jobs")
        say(f"    kill -9 {self.server.pid}      # it will be started again")
        say("Ctrl-C ends it. Its log:")
        with suppress(KeyboardInterrupt):
            while True:
                self.server.is_echoing = True
                if self.server.process.wait() != -signal.SIGKILL:
                    raise DemoError("the server has ended by itself")
                self.start()
                say(f"Killed, and started again as process {self.server.pid}.")
        say()


def milliseconds(number: float) -> str:
    return f"{number * 1000:.1f} ms"


@contextmanager
def making(screen: Screen, app: str) -> Generator[Demo, None, None]:
    """Make a demo with a directory of its own, and end what it has started."""
    with tempfile.TemporaryDirectory(prefix="asgi_bg_demo_") as directory:
        demo = Demo(screen, app, Path(directory))
        try:
            yield demo
        finally:
            demo.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills a server, and shows what becomes of it.")
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
        screen.say(screen.red(f"{screen.no} {exc or repr(exc)}"))
        return 1
    except KeyboardInterrupt:
        screen.say("Interrupted.")
        return 130


def show(screen: Screen, app: str, *, is_oneshot: bool) -> int:
    screen.say(screen.bold("asgi_bg: the answer first, then the work, whatever happens"))
    with making(screen, app) as demo:
        demo.run()
        if not is_oneshot:
            demo.stay()
        ended_well = demo.server.stop()
        log = demo.server.log
    screen.say("The server has ended." if ended_well else f"The server ended badly:\n{log}")
    return 0 if ended_well and not demo.broken else 1


if __name__ == "__main__":
    sys.exit(main())
