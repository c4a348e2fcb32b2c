"""One application per framework, for real servers.

Imported by the servers' processes and by nobody else. All have these routes, each of them with
the ``id`` of a request and its job, which waits for its gate (see `tests.servers.tasks`):
``/async`` and ``/sync`` answer with the id of the job, ``/parts`` sends a part, adds the job,
and sends more until its own gate is open. The application records that it is opened and closed.
"""
