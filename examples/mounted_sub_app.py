"""An existing application, of which only one mounted part has background tasks.

    pip install 'asgi_bg[starlette]' uvicorn
    uvicorn mounted_sub_app:app     # here, or from above: uvicorn examples.mounted_sub_app:app

    curl localhost:8000                         # the shop, which knows nothing of all this
    curl 'localhost:8000/api/search?q=socks'    # found; the search is recorded afterwards
    cat /tmp/searches.txt                       # or wherever the temporary folder is

The middleware works anywhere in a stack. What a mounted application does not get is the
server's lifespan: frameworks keep startup and shutdown to the outermost one. So the two
share a `Runner`, which the outer lifespan starts and closes.
"""

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task

PRODUCTS = ("blue socks", "red socks", "green hat")
SEARCHES = Path(tempfile.gettempdir(), "searches.txt")

runner = Runner()


def record_search(term: str, found: int) -> None:
    with SEARCHES.open("a", encoding="utf-8") as file:
        file.write(f"{term}\t{found}\n")


# The part that has background tasks.


async def search(request: Request) -> JSONResponse:
    term = request.query_params.get("q", "")
    found = [product for product in PRODUCTS if term in product]
    add_task(record_search, term, len(found))
    return JSONResponse(found)


api = BackgroundTaskMiddleware(Starlette(routes=[Route("/search", search)]), runner=runner)


# The shop around it.


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("Socks, and a hat.\n")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
    # Without this line the tasks would run as well, and no response would be later. But each
    # would be part of its request's own ASGI call, as there is nothing else that the server
    # waits for when it stops; jobs that wait for a retry would then be lost.
    async with runner:
        yield


app = Starlette(routes=[Route("/", home), Mount("/api", api)], lifespan=lifespan)
