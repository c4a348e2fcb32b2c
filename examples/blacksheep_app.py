"""BlackSheep: an order is taken at once, and the kitchen hears of it after the response.

    pip install 'asgi_bg[blacksheep]' uvicorn
    uvicorn blacksheep_app:app       # here, or from above: uvicorn examples.blacksheep_app:app

    curl -i -X POST localhost:8000/orders/soup    # {"job": ...}
    curl localhost:8000/kitchen                   # what the kitchen has heard of

A handler has a parameter of the type `BackgroundTasks`, and gets its request's tasks.
"""

import asyncio

from blacksheep import Application, Response, Router
from blacksheep.server.responses import json

from asgi_bg.blacksheep import BackgroundTasks, init_app

router = Router()
app = Application(router=router)
init_app(app)

kitchen: list[str] = []


async def tell_kitchen(dish: str) -> None:
    await asyncio.sleep(0.1)
    kitchen.append(dish)


@router.post("/orders/{dish}")
async def order(dish: str, tasks: BackgroundTasks) -> Response:
    job = tasks.add_task(tell_kitchen, dish)
    return json({"job": job.id})


@router.get("/kitchen")
async def show_kitchen() -> Response:
    return json(kitchen)
