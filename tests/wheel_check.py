"""Run by CI against the built wheel, with no extra installed and no checkout in sight."""

import asyncio
import importlib.metadata
import pathlib
import sys
import tempfile

import asgi_bg

done: list[str] = []


async def app(scope, receive, send):
    asgi_bg.add_task(done.append, "thread")
    asgi_bg.add_task(work)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def work() -> None:
    done.append("loop")


async def main() -> None:
    async def receive():
        return {"type": "http.request"}

    async def send(message):
        done.append(message["type"])

    await asgi_bg.BackgroundTaskMiddleware(app)({"type": "http"}, receive, send)


@asgi_bg.task
async def double(value: int) -> int:
    return 2 * value


async def keep(path: str) -> None:
    async with asgi_bg.Runner(journal=path) as runner:
        job = await runner.add_task(double, 21)
        assert await job.result(10) == 42
        assert (await runner.info(job.id)).durable


asyncio.run(main())
with tempfile.TemporaryDirectory() as directory:
    asyncio.run(keep(f"{directory}/jobs.db"))
package = pathlib.Path(asgi_bg.__file__).parent
installed = {dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()}
assert done == ["http.response.start", "http.response.body", "thread", "loop"], done
assert "site-packages" in str(package), package
assert (package / "py.typed").is_file()
assert not installed & {"starlette", "fastapi", "uvicorn"}, installed
assert asgi_bg.__version__ == importlib.metadata.version("asgi_bg")
for extra in ("starlette", "fastapi"):
    try:
        __import__(f"asgi_bg.{extra}")
    except ImportError as exc:
        if f"asgi_bg[{extra}]" not in str(exc):
            raise
    else:
        sys.exit(f"asgi_bg.{extra} imported without its framework")
print("wheel ok:", asgi_bg.__version__)
