"""What a client is told of its job, as JSON and with a tag to compare it by (W2)."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from asgi_bg._job import JobInfo, JobStatus
from asgi_bg.journal._values import write_foreign_in_full

_encode = msgspec.json.Encoder().encode
# Deterministic, so that a set is written the same by every process: its tag is compared.
_encode_result = msgspec.json.Encoder(enc_hook=write_foreign_in_full, order="deterministic").encode


class JobState(msgspec.Struct, frozen=True):
    """What a client is told of its job.

    Attributes:
        body: It as JSON.
        tag: Differs from the tags of the job's other states, and is the same in every process.
        is_final: Whether the job has ended.
    """

    body: bytes
    tag: str
    is_final: bool


def state_of(job: JobInfo) -> JobState:
    """Return what a client is told of a job: nothing that is not in here (W2)."""
    body = _encode(
        {
            "id": job.id,
            "status": job.status.value,
            "progress": job.progress,
            # Words that are no Unicode text (a surrogate alone) are no reason to tell nothing.
            "message": job.message.encode(errors="replace").decode(),
            "queued_at": job.queued_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "result": msgspec.Raw(_written(job.result))
            if job.status is JobStatus.succeeded
            else None,
        }
    )
    tag = hashlib.blake2b(body, digest_size=12).hexdigest()
    return JobState(body, tag, job.status.is_final)


def _written(result: Any) -> bytes:
    try:
        return _encode_result(result)
    except Exception:
        # Whatever the user's classes raise: the runner has told of it where it matters.
        return b"null"


def facts_of(job: JobInfo) -> tuple[object, ...]:
    """Return what of a job makes its state another; the result changes with the status only."""
    return (
        job.status,
        job.progress,
        job.message,
        job.queued_at,
        job.started_at,
        job.finished_at,
    )
