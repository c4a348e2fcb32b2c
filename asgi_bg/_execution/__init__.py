"""How a call is carried out: in a worker thread, or in a worker process."""
