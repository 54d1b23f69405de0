"""When attention on a CPU is computed by plain matmuls; models/cpu_attention.py says why."""

MIN_MATMUL_CONTEXT, MAX_MATMUL_CONTEXT = 128, 256
"""Other sequences are left to torch's fused kernel. For short ones, the calls would take longer than the work. For long
ones, that kernel loses less time, and the scores would take more memory."""
