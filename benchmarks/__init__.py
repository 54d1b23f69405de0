"""Measured claims: each script runs alone, `python benchmarks/NAME.py`; tests import parts of some."""
