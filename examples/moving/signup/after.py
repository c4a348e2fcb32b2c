"""The same with asgi_bg: uvicorn examples.moving.signup.after:app."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request

from asgi_bg import add_task, task
from asgi_bg.fastapi import BackgroundTasks, init_app
from examples.moving.signup import common
from examples.moving.signup.common import log_visit

router = APIRouter()

# Declared, so that mails are kept in the journal; visits may be lost.
send_mail = task(name="signup:send_mail", retries=3)(common.send_mail)


def count_visit(request: Request, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(log_visit, request.url.path)


def welcome(email: str) -> None:
    """A function that is given nothing to pass on."""
    add_task(send_mail, email, subject="Welcome")


@router.post("/signup")
def sign_up(
    email: str, background_tasks: BackgroundTasks, _: Annotated[None, Depends(count_visit)]
) -> dict[str, str]:
    if "@" not in email:
        background_tasks.add_task(send_mail, "ops@example.com", subject="Somebody cannot type")
        raise HTTPException(422, "no address")
    welcome(email)
    background_tasks.add_task(send_mail, "ops@example.com", subject="Somebody signs up")
    return {"status": "welcome"}


app = FastAPI()
app.include_router(router)
init_app(app, journal=os.environ.get("JOURNAL", "jobs.db"))
