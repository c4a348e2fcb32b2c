"""When a job runs, and whether: from its admission to its end, on one event loop."""
