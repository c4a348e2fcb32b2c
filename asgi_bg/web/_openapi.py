"""The status API's description of itself, in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

_INSTANT = {"type": "string", "format": "date-time"}
_NO_STORE = {
    "Cache-Control": {
        "description": "Nobody keeps the answer.",
        "schema": {"type": "string", "const": "no-store"},
    }
}
_TAG = {
    "ETag": {
        "description": "Names this state of the job; give it as If-None-Match.",
        "required": True,
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{24}"$'},
    }
}

_STATE = {
    "type": "object",
    "description": "How a job stands.",
    "additionalProperties": False,
    "required": [
        "id",
        "status",
        "progress",
        "message",
        "queued_at",
        "started_at",
        "finished_at",
        "result",
    ],
    "properties": {
        "id": {"$ref": "#/components/schemas/Id"},
        "status": {
            "description": "The last three are final.",
            "enum": ["queued", "running", "succeeded", "failed", "cancelled"],
        },
        "progress": {
            "description": "The fraction done, if the task tells it.",
            "type": ["number", "null"],
            "minimum": 0,
            "maximum": 1,
        },
        "message": {"description": "What the task says it is doing.", "type": "string"},
        "queued_at": {**_INSTANT, "description": "When the job was added."},
        "started_at": {
            "description": "When its last attempt started.",
            "anyOf": [_INSTANT, {"type": "null"}],
        },
        "finished_at": {
            "description": "When it ended.",
            "anyOf": [_INSTANT, {"type": "null"}],
        },
        "result": {
            "description": "What the task returned, once it has succeeded and if that can be "
            "written as JSON; else null.",
        },
    },
}

_WAIT = {
    "name": "wait",
    "in": "query",
    "description": "For how many seconds to wait, at most; more than 60 are taken as 60, and "
    "under some servers more than 10 as 10. "
    "With If-None-Match the answer comes as soon as the state is another, else as soon as the "
    "job has ended. A stream does not look at it.",
    "schema": {"type": "number", "minimum": 0},
}
_KNOWN = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The ETag of the state that the client knows.",
    "schema": {"type": "string"},
}
_LAST = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event of a stream that the client has seen.",
    "schema": {"type": "string"},
}


def _failure(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "headers": _NO_STORE,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


_SHOW = {
    "operationId": "followJob",
    "summary": "Tell how a job stands, now or when that changes",
    "parameters": [_WAIT, _KNOWN, _LAST],
    "responses": {
        "200": {
            "description": "How the job stands. As a stream, where the client prefers "
            "text/event-stream: an event for every change, its data such a JSON object and its "
            "id the tag; the stream ends after the final state.",
            "headers": _NO_STORE,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Job"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        },
        "204": {
            "description": "The stream would have no event: the job has ended, and the client "
            "has seen the final state.",
            "headers": _NO_STORE,
        },
        "304": {
            "description": "The job stands as the client knows.",
            "headers": {**_NO_STORE, **_TAG},
        },
        "400": _failure("The parameter wait is no number of seconds."),
        "404": _failure("There is no such job, or not for this client."),
        "503": _failure("That cannot be told now; try again."),
    },
}


def document(url: str) -> dict[str, Any]:
    """Return the description.

    Args:
        url: Where the application is mounted, without a slash at its end.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Job status",
            "version": "1",
            "description": "For clients that follow their own jobs.",
        },
        "servers": [{"url": url}],
        "paths": {
            "/{id}": {
                "parameters": [
                    {
                        "name": "id",
                        "in": "path",
                        "required": True,
                        "schema": {"$ref": "#/components/schemas/Id"},
                    }
                ],
                "get": _SHOW,
            },
            "/openapi.json": {
                "get": {
                    "operationId": "describe",
                    "summary": "Return this document",
                    "responses": {
                        "200": {
                            "description": "It.",
                            "headers": _NO_STORE,
                            "content": {"application/json": {"schema": {"type": "object"}}},
                        }
                    },
                }
            },
        },
        "components": {
            "schemas": {
                "Id": {
                    "description": "A job's id, as add_task returned it.",
                    "type": "string",
                    "pattern": "^[0-9a-f]{32}$",
                },
                "Job": _STATE,
                "Error": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["error"],
                    "properties": {"error": {"type": "string"}},
                },
            }
        },
    }
