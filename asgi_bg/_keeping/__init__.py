"""The jobs that a journal keeps, as this process sees them."""
