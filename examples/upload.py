"""Starlette: an upload is processed after the response, and a progress bar shows how far.

    pip install 'asgi_bg[web]' uvicorn
    uvicorn upload:app       # here, or from above: uvicorn examples.upload:app

Open http://localhost:8000 and choose a file. The page follows its own job at /jobs/{id}, where
`JobStatusApp` streams the progress. Restart the server in the middle: the job is kept in a
journal and starts again, and the bar goes on. Uploads and journal are in the folder "uploads"
of the system's temporary folder.
"""

import hashlib
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.web import JobStatusApp

PAGE = Path(__file__).with_name("upload.html")
UPLOADS = Path(tempfile.gettempdir(), "uploads")
UPLOADS.mkdir(exist_ok=True)
LARGEST = 100 * 1024 * 1024  # bytes
STEPS = 40

runner = Runner(journal=UPLOADS / "jobs.db")


@task
def fingerprint(path: Path) -> dict[str, Any]:
    """Stands for what takes its time: converting a video, reading a table."""
    job = current_job()
    size = path.stat().st_size
    found = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while part := file.read(max(1, -(-size // STEPS))):
            found.update(part)
            done += len(part)
            time.sleep(0.1)
            job.progress(done / size, f"{done:,} of {size:,} bytes")
    # What is returned here is shown to whoever knows the job's id.
    return {"bytes": size, "sha256": found.hexdigest()}


async def upload(request: Request) -> JSONResponse:
    """Keep the request's body as a file; its name is ours, not the client's."""
    path = UPLOADS / uuid.uuid4().hex
    size = 0
    with path.open("wb") as file:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST:
                path.unlink()
                raise HTTPException(413, f"a file may have {LARGEST:,} bytes")
            file.write(part)
    job = add_task(fingerprint, path)
    url = str(request.url_for("jobs", path=job.id))
    return JSONResponse({"id": job.id, "url": url}, status_code=202, headers={"location": url})


async def page(request: Request) -> FileResponse:
    return FileResponse(PAGE)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/upload", upload, methods=["POST"]),
        Mount("/jobs", JobStatusApp(runner), name="jobs"),
    ],
    middleware=[Middleware(BackgroundTaskMiddleware, runner=runner)],
)
