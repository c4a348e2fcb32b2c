"""The benchmark suite; start it with ``python3 benchmarks/run.py``."""
