"""Starlette: a sign-up answers at once, and the welcome mail is sent after the response.

    pip install 'asgi_bg[starlette]' uvicorn
    uvicorn starlette_app:app       # here, or from above: uvicorn examples.starlette_app:app

    curl -i -X POST 'localhost:8000/signup?email=ada@example.com'    # 202, and a location
    curl localhost:8000/jobs/...                                     # that location

Sending mail blocks, so it is a plain `def`: those run in worker threads of the runner's own.
The mail server is busy the first time, which `retry_on` takes for a reason to try again. The
mails are files in the folder "outbox" of the system's temporary folder.
"""

import tempfile
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.exceptions import JobNotFound

OUTBOX = Path(tempfile.gettempdir(), "outbox")

runner = Runner(max_threads=4)


class MailServerBusy(Exception):
    """The mail server asks to come back later."""


@task(retries=3, retry_delay=0.5, retry_on=(MailServerBusy,), redact=("email",))
def send_welcome(email: str) -> str:
    job = current_job()
    if job.attempt == 1:
        raise MailServerBusy("451 try again later")
    time.sleep(0.2)
    OUTBOX.mkdir(exist_ok=True)
    # The id is the same over all attempts: a second one overwrites, and sends nothing twice.
    mail = OUTBOX / f"{job.id}.txt"
    mail.write_text(f"To: {email}\nSubject: Welcome!\n", encoding="utf-8")
    return mail.name


async def sign_up(request: Request) -> JSONResponse:
    email = request.query_params.get("email", "")
    if "@" not in email:
        raise HTTPException(400, "an e-mail address is missing: /signup?email=...")
    job = add_task(send_welcome, email)
    url = str(request.url_for("job", id=job.id))
    return JSONResponse({"job": url}, status_code=202, headers={"location": url})


async def show_job(request: Request) -> JSONResponse:
    try:
        info = await runner.info(request.path_params["id"])
    except JobNotFound:
        raise HTTPException(404) from None
    return JSONResponse(
        {
            "status": info.status,
            "attempt": info.attempt,
            "result": info.result,
            "error": info.error,
        }
    )


app = Starlette(
    routes=[
        Route("/signup", sign_up, methods=["POST"]),
        Route("/jobs/{id}", show_job, name="job"),
    ],
    middleware=[Middleware(BackgroundTaskMiddleware, runner=runner)],
)
