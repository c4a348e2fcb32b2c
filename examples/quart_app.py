"""Quart: mails to subscribers, sent after the response, with one object for all requests.

    pip install 'asgi_bg[quart]' hypercorn
    hypercorn quart_app:app         # here, or from above: hypercorn examples.quart_app:app

    curl -X POST localhost:8000/subscribers/ada@example.com    # {"job": "..."}
    curl localhost:8000/jobs/...    # how it went
    curl localhost:8000/outbox      # what was sent

`tasks` is used like Quart's own `request`: each use finds the request of its caller.
"""

from quart import Quart, abort, current_app

from asgi_bg import task
from asgi_bg.exceptions import JobNotFound
from asgi_bg.quart import BackgroundTasks, init_app

app = Quart(__name__)
app.config["SENDER"] = "news@example.com"
runner = init_app(app, drain_timeout=10)
tasks = BackgroundTasks()

outbox: list[str] = []
subscribers: set[str] = set()


@task(timeout=10)
async def welcome(address: str) -> str:
    """Send a mail; a job has the application context of the request that added it."""
    mail = f"{current_app.config['SENDER']} to {address}: welcome!"
    outbox.append(mail)
    return mail


def subscribe(address: str) -> str:
    """Subscribe somebody, and return the id of the mail's job."""
    subscribers.add(address)
    return tasks.add_task(welcome, address).id


@app.post("/subscribers/<address>")
def add_subscriber(address: str) -> tuple[dict[str, str], int]:
    """Run in a thread, as it is a plain function; that makes no difference to `tasks`."""
    return {"job": subscribe(address)}, 202


@app.get("/jobs/<id>")
async def show_job(id: str) -> dict[str, str | None]:
    try:
        info = await runner.info(id)
    except JobNotFound:
        abort(404)
    return {"status": info.status, "result": info.result, "error": info.error}


@app.get("/outbox")
async def show_outbox() -> list[str]:
    return outbox
