"""A project with FastAPI's BackgroundTasks: uvicorn examples.moving.signup.before:app."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request

from examples.moving.signup.common import log_visit, send_mail

router = APIRouter()


def count_visit(request: Request, background_tasks: BackgroundTasks) -> None:
    background_tasks.add_task(log_visit, request.url.path)


def welcome(email: str, background_tasks: BackgroundTasks) -> None:
    """A function that is given the tasks only to pass something on."""
    background_tasks.add_task(send_mail, email, subject="Welcome")


@router.post("/signup")
def sign_up(
    email: str, background_tasks: BackgroundTasks, _: Annotated[None, Depends(count_visit)]
) -> dict[str, str]:
    if "@" not in email:
        # Its answer runs no task, so the mail to the operator has to be sent in the request.
        send_mail("ops@example.com", subject="Somebody cannot type")
        raise HTTPException(422, "no address")
    welcome(email, background_tasks)
    background_tasks.add_task(send_mail, "ops@example.com", subject="Somebody signs up")
    return {"status": "welcome"}


app = FastAPI()
app.include_router(router)
