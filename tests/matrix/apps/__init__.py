"""One application per framework, all with the same three routes.

Imported by the servers' processes and by nobody else. ``/plain`` answers at once, ``/stream``
sends a chunk and waits for a gate, ``/ws`` accepts a websocket and waits for its end. Each adds
its jobs first, in the way its framework's users would, see `tests.matrix.call`.
"""
