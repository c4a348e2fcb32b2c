"""Run by CI against the built wheel, with no extra installed and no checkout in sight."""

import asyncio
import importlib.metadata
import pathlib
import sys

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


asyncio.run(main())
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
