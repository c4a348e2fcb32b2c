"""What AWS Lambda does with a function behind API Gateway, on a loopback port.

Every HTTP request becomes an event of API Gateway (payload format 2.0), and the function that
Mangum makes of an application is called with it: one event at a time, always in the main
thread. What it returns is the response. A handshake for a websocket becomes an event of the
kind that API Gateway has for those.

Usage: ``python -m tests.matrix.lambda_runtime PORT MODULE:APP``
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import sys
import threading
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

from mangum import Mangum

from tests.matrix.call import Call
from tests.servers.stage import record

Work = tuple[dict[str, Any], "Future[dict[str, Any]]"]

events: SimpleQueue[Work] = SimpleQueue()


class Gateway(BaseHTTPRequestHandler):
    """Turns requests into events, and what the function returns into responses."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        event = self._event()
        result: Future[dict[str, Any]] = Future()
        events.put((event, result))
        try:
            answer: dict[str, Any] = result.result()
        except Exception as exc:  # as a function that fails: API Gateway says so
            answer = {"statusCode": 502, "headers": {}, "body": str(exc)}
        record("handed-back", id=Call(event.get("rawQueryString", "")).id)
        body = answer["body"].encode()
        if answer.get("isBase64Encoded"):
            body = base64.b64decode(body)
        self.send_response(answer["statusCode"])
        for name, value in answer["headers"].items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _event(self) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "upgrade" in headers:
            return {"requestContext": {"eventType": "CONNECT", "routeKey": "$connect"}}
        return {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "headers": headers,
            "requestContext": {
                "http": {
                    "method": self.command,
                    "path": path,
                    "protocol": "HTTP/1.1",
                    "sourceIp": "127.0.0.1",
                },
                "stage": "$default",
            },
            "isBase64Encoded": False,
        }

    def handle(self) -> None:
        """Serve one client, who may leave at any time."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of requests."""


def main(port: str, target: str) -> None:
    """Serve until killed."""
    module, _, name = target.partition(":")
    asyncio.set_event_loop(asyncio.new_event_loop())  # what Mangum takes
    function = Mangum(getattr(importlib.import_module(module), name))
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        event, result = events.get()
        try:
            result.set_result(function(event, None))  # type: ignore[arg-type] # no context
        except Exception as exc:
            result.set_exception(exc)


if __name__ == "__main__":
    main(*sys.argv[1:])
