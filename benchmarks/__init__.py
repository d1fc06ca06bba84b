"""Hippodrome beside its rivals, in one process run each: `make bench`, or `python -m benchmarks --help`."""
