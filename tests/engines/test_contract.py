"""All engines keep the contract, and it finds out those that do not (E6)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from asgi_bg._job import JobStatus
from asgi_bg._options import Options
from asgi_bg.engines import Engine, Message
from asgi_bg.engines.worker import Worker
from asgi_bg.testing.engine_contract import EngineContract
from tests.engines.memory import MemoryEngine
from tests.helpers import need
from tests.services.postgres import PostgresServer
from tests.services.rabbitmq import RabbitServer
from tests.services.redis import RedisServer
from tests.services.service import free_port

ROOT = Path(__file__).parent.parent.parent
SITE = "tests.engines.contract_site"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        assert isinstance(server, RedisServer)
        yield server


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    procrastinate = need("procrastinate")
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        assert isinstance(server, PostgresServer)
        connector = procrastinate.SyncPsycopgConnector(conninfo=server.url)
        app = procrastinate.App(connector=connector)
        with app.open():
            app.schema_manager.apply_schema()
        yield server


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    with RabbitServer(tmp_path_factory.mktemp("rabbit")) as server:
        assert isinstance(server, RabbitServer)
        yield server


class Contract(EngineContract):
    """With a worker in a process of its own.

    Attributes:
        kind: The engine, for `tests.engines.contract_site`.
        command: The worker's.
    """

    __test__ = False
    kind: ClassVar[str]
    command: ClassVar[tuple[str, ...]]
    url: str

    def environment(self) -> dict[str, str]:
        return {"ENGINE_KIND": self.kind, "ENGINE_URL": self.url}

    @contextlib.contextmanager
    def run_worker(self) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            (sys.executable, "-m", *self.command),
            cwd=ROOT,
            env={**os.environ, **self.environment()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class OnRedis(Contract):
    """With an empty Redis."""

    @pytest.fixture(autouse=True)
    def _redis(self, redis: RedisServer) -> None:
        self.url = redis.url
        client = need("redis").Redis.from_url(redis.url)
        client.flushall()
        client.close()


class TestArq(OnRedis):
    """ARQ, as it is."""

    __test__ = True
    kind = "arq"
    command = ("arq", f"{SITE}.WorkerSettings")
    dedupes = True

    def make_engine(self) -> Engine:
        return need("asgi_bg.engines.arq").ArqEngine(self.url)

    def make_unreachable(self) -> Engine:
        url = f"redis://127.0.0.1:{free_port()}"
        return need("asgi_bg.engines.arq").ArqEngine(url, timeout=1.0)


class TestSaq(OnRedis):
    """The engine of the examples."""

    __test__ = True
    kind = "saq"
    command = ("saq", f"{SITE}.settings")
    dedupes = True

    def make_engine(self) -> Engine:
        return need("examples.engines.saq_engine").SaqEngine(self.url, lease=1)

    def make_unreachable(self) -> Engine:
        url = f"redis://127.0.0.1:{free_port()}"
        return need("examples.engines.saq_engine").SaqEngine(url, timeout=1.0)

    def test_the_example_is_short(self) -> None:
        """E6: less than a hundred lines."""
        lines = (ROOT / "examples/engines/saq_engine.py").read_text().splitlines()
        assert len(lines) < 100

    def test_a_killed_workers_job_runs_again(self) -> None:
        """Once its heart has not beaten for as long as the engine says; not before."""

        async def use(engine: Engine) -> None:
            held = self.message(task="contract_site:hold", call=f'[["{self.path}"]]')
            await engine.send([held])
            with self.run_worker() as process:
                await self.until(self.lines, "it has begun")
                process.kill()
            with self.run_worker():
                await self.until(lambda: len(self.lines()) == 2, "it has begun again")
                await asyncio.sleep(3.0)  # three times as long as its heart may stand still
                assert len(self.lines()) == 2, "nobody takes it from who works on it"
                Path(f"{self.path}.gate").touch()
                await self.until_status(engine, held.id, JobStatus.succeeded)
            assert [line.attempt for line in self.lines()] == [1, 2]

        self.with_engine(use)

    async def until_status(self, engine: Engine, id: str, status: JobStatus) -> None:
        end = time.monotonic() + self.deadline
        while (report := await engine.fetch(id)) is None or report.status is not status:
            assert time.monotonic() < end, report
            await asyncio.sleep(0.05)

    @pytest.mark.parametrize("begins", [True, False])
    def test_what_has_only_just_begun_is_not_taken_for_lost(self, begins: bool) -> None:
        """A worker moves a job first, and then notes that it has begun with it."""
        saq = need("saq")

        async def use(engine: Engine) -> None:
            sent = self.message()
            await engine.send([sent])
            queue = need("examples.engines.saq_engine").WorkerQueue.from_url(self.url)
            try:
                job = await queue.dequeue(1.0)
                sweeping = asyncio.ensure_future(queue.sweep(60, 0.5))
                end = time.monotonic() + self.deadline
                while not await queue.redis.exists(queue.namespace("sweep")):
                    assert time.monotonic() < end, "it does not sweep"
                if begins:
                    await job.update(status=saq.Status.ACTIVE)
                assert await sweeping == ([] if begins else [sent.id])
                assert await queue.count("queued") == (0 if begins else 1)
            finally:
                await queue.disconnect()

        self.with_engine(use)


class TestProcrastinate(Contract):
    """Procrastinate, as it is."""

    __test__ = True
    kind = "procrastinate"
    command = (
        *("procrastinate", f"--app={SITE}.app", "worker", "--concurrency", "10"),
        *("--fetch-job-polling-interval", "0.2"),
    )
    dedupes = True

    @pytest.fixture(autouse=True)
    def _empty(self, postgres: PostgresServer) -> None:
        self.url = postgres.url
        with need("psycopg").connect(postgres.url, autocommit=True) as connection:
            connection.execute("TRUNCATE procrastinate_jobs CASCADE")

    def engine_at(self, url: str, **options: Any) -> Engine:
        procrastinate = need("procrastinate")
        app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1))
        made: Engine = need("asgi_bg.engines.procrastinate").ProcrastinateEngine(app, **options)
        return made

    def make_engine(self) -> Engine:
        return self.engine_at(self.url)

    def make_unreachable(self) -> Engine:
        return self.engine_at(f"postgresql://127.0.0.1:{free_port()}/none", timeout=1.0)


class TestTaskiq(OnRedis):
    """taskiq, with the broker that acknowledges what has run."""

    __test__ = True
    kind = "taskiq"
    command = ("taskiq", "worker", f"{SITE}:broker", "--workers", "1")

    def engine_at(self, url: str, **options: Any) -> Engine:
        redis = need("taskiq_redis")
        broker = redis.RedisStreamBroker(url).with_result_backend(
            redis.RedisAsyncResultBackend(url)
        )
        made: Engine = need("asgi_bg.engines.taskiq").TaskiqEngine(broker, **options)
        return made

    def make_engine(self) -> Engine:
        return self.engine_at(self.url)

    def make_unreachable(self) -> Engine:
        return self.engine_at(f"redis://127.0.0.1:{free_port()}", timeout=1.0)


class CeleryContract(Contract):
    """Celery, as it is, with its results in Redis."""

    kind = "celery"
    command = ("celery", "-A", f"{SITE}:celery", "worker", "--concurrency", "4", "-l", "error")
    results: str

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "ENGINE_RESULTS": self.results}

    def engine_at(self, url: str, **options: Any) -> Engine:
        celery = need("celery").Celery(broker=url, backend=self.results, set_as_current=False)
        made: Engine = need("asgi_bg.engines.celery").CeleryEngine(celery, **options)
        return made

    def make_engine(self) -> Engine:
        return self.engine_at(self.url)

    def test_it_cancels(self) -> None:
        """E5: Celery's workers are asked, so one has to run; and the job must not be due."""

        async def use(engine: Engine) -> None:
            await engine.send([self.message("first")])
            with self.run_worker():
                await self.until(self.lines, "the worker works")
                due = time.time() + 5.0
                gone = self.message("gone", run_after=due, options=Options(delay=5.0))
                await engine.send([gone, self.message("stays")])
                await self.until(lambda: len(self.lines()) == 2, "the worker has taken both")
                assert await engine.cancel(gone.id) is True
                after = self.message("after", run_after=due + 1.0, options=Options(delay=6.0))
                await engine.send([after])
                await self.until(lambda: len(self.lines()) == 3, "what was due later has run")
            assert [line.words for line in self.lines()] == ["first", "stays", "after"]

        self.with_engine(use)


class TestCeleryOnRedis(CeleryContract, OnRedis):
    """With Redis as the broker."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _results(self, redis: RedisServer) -> None:
        self.results = redis.url

    def make_unreachable(self) -> Engine:
        return self.engine_at(f"redis://127.0.0.1:{free_port()}", timeout=1.0)


class TestCeleryOnRabbitMQ(CeleryContract):
    """With RabbitMQ as the broker."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _empty(self, rabbit: RabbitServer, redis: RedisServer) -> None:
        self.url, self.results = rabbit.url, redis.url
        with need("kombu").Connection(rabbit.url) as connection:
            channel = connection.channel()
            channel.queue_delete("celery")
            channel.close()

    def make_unreachable(self) -> Engine:
        return self.engine_at(f"amqp://guest:guest@127.0.0.1:{free_port()}//", timeout=1.0)


class TestMemory(EngineContract):
    """The engine of our own tests, and of others that know no better."""

    dedupes = True

    def make_engine(self) -> Engine:
        self.made = MemoryEngine(supports=("results", "cancel", "retries", "timeout"))
        return self.made

    def make_unreachable(self) -> Engine:
        engine = MemoryEngine(timeout=1.0)
        engine.is_away = True
        return engine

    @contextlib.contextmanager
    def run_worker(self) -> Iterator[None]:
        stopping = asyncio.Event()
        worker = Worker(self.made)
        working = asyncio.ensure_future(self.made.work(worker, 10, stopping, 1.0))
        yield
        stopping.set()
        working.cancel()


class Forgetful(MemoryEngine):
    async def send(self, messages: Sequence[Message]) -> list[str | None]:
        return [None] * len(messages)


class Short(MemoryEngine):
    async def send(self, messages: Sequence[Message]) -> list[str | None]:
        return (await super().send(messages))[1:]


class Boastful(MemoryEngine):
    def check(self, task: Any) -> None:
        """Take everything."""


class Greedy(MemoryEngine):
    def native(self, func: object) -> Any:
        return super().native("anything")


class Patient(MemoryEngine):
    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        await asyncio.sleep(5)


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        (Forgetful, "test_a_batch_runs"),
        (Short, "test_there_is_an_answer_for_each"),
        (Boastful, "test_what_it_lacks_is_refused"),
        (Greedy, "test_what_is_not_its_own_is_not_native"),
        (Patient, "test_nobody_answers"),
    ],
)
def test_the_contract_finds_what_is_wrong(
    kind: type[MemoryEngine], test: str, tmp_path: Path
) -> None:
    """E6: a contract that everything passes would be none."""

    class Faulty(TestMemory):
        deadline = 0.3

        def make_engine(self) -> Engine:
            self.made = kind(supports=("results",))
            return self.made

        def make_unreachable(self) -> Engine:
            engine = kind(timeout=1.0)
            engine.is_frozen = True
            return engine

    contract = Faulty()
    contract.path = str(tmp_path / "lines")
    Path(contract.path).touch()
    arguments = (print,) if "native" in test else ()
    with pytest.raises((AssertionError, pytest.fail.Exception, asyncio.TimeoutError)):
        getattr(contract, test)(*arguments)
