"""Falcon: a text is taken at once, and its words are counted after the response.

    pip install 'asgi_bg[falcon]' uvicorn
    uvicorn falcon_app:app       # here, or from above: uvicorn examples.falcon_app:app

    curl -i -X POST localhost:8000/texts -d 'to be or not to be'   # 202, and a location
    curl localhost:8000/jobs/...                                   # that location

Counting words takes no I/O and blocks, so it is a plain `def`: those run in worker threads of
the runner's own. Falcon's own `resp.schedule` works beside it.
"""

from collections import Counter
from typing import Any

import falcon
import falcon.asgi

from asgi_bg import Runner, add_task
from asgi_bg.exceptions import JobNotFound
from asgi_bg.falcon import init_app

runner = Runner(max_threads=4)


def count_words(text: str) -> dict[str, int]:
    return dict(Counter(text.split()).most_common(3))


class Texts:
    """Takes texts."""

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        text = (await req.bounded_stream.read()).decode()
        job = add_task(count_words, text)
        resp.status = falcon.HTTP_202
        resp.location = f"/jobs/{job.id}"


class Jobs:
    """Tells how a job stands."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, id: str) -> None:
        try:
            info = await runner.info(id)
        except JobNotFound:
            raise falcon.HTTPNotFound from None
        resp.media = {"status": info.status, "result": info.result}


falcon_app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
falcon_app.add_route("/texts", Texts())
falcon_app.add_route("/jobs/{id}", Jobs())

app = init_app(falcon_app, runner=runner)
