"""When attention on a CPU is computed by plain matmuls; models/cpu_attention.py says why."""

MAX_MATMUL_CONTEXT = 256
"""Longer sequences are left to torch's fused kernel: there it loses less time, and scores would take more memory."""
