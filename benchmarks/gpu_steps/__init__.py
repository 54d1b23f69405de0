"""The steps of benchmarks/gpu.py, one file a subject; each step is a function that takes a Bench."""
