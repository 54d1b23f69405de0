"""When attention on a CPU is computed by plain matmuls, and how much at a time; models/cpu_attention.py says why."""

MIN_MATMUL_CONTEXT, MAX_MATMUL_CONTEXT = 32, 1024
"""Other sequences are left to torch's fused kernel. For short ones, the calls would take longer than the work. For long
ones, that kernel loses less time."""
MAX_CONTEXT_PER_WIDTH = 16
"""The same limit for narrow heads: the context divided by the width of a head."""
MIN_SCORES = 2**14
"""With fewer scores in all, the calls would take longer than the work too."""
QUERIES = 128
"""Queries that are scored at a time; they are scored against the keys up to the last of them only."""
SCORES = 2**20
"""About so many scores are computed at a time, but at least those of one sequence. With fewer, starting the operations
takes a larger part of the time; more do not fit into the caches of a CPU."""
BF16 = 2
"""Bytes of each number."""


def by_matmuls(sequences: int, heads: int, length: int, head_size: int) -> bool:
    """Whether causal attention in bf16 is computed by matmuls on a CPU."""
    has_length = MIN_MATMUL_CONTEXT <= length <= min(MAX_MATMUL_CONTEXT, MAX_CONTEXT_PER_WIDTH * head_size)
    return has_length and sequences * _scores(heads, length) >= MIN_SCORES


def sequences_at_once(heads: int, length: int) -> int:
    """Return how many sequences of this length are computed at a time."""
    return max(1, SCORES // _scores(heads, length))


def forward_bytes(sequences: int, heads: int, length: int, head_size: int) -> int:
    """Return the most bytes that the sequences which are computed at a time take in the forward pass."""
    rows = heads * min(sequences, sequences_at_once(heads, length))
    scores = rows * max(queries * end for queries, end in _blocks(length))
    # Contiguous queries, keys and values; the scores and their softmax; the mask.
    return (3 * rows * length * head_size + 2 * scores + length**2) * BF16


def backward_bytes(sequences: int, heads: int, length: int, head_size: int) -> int:
    """Return the most bytes that the sequences which are computed at a time take in the backward pass."""
    rows = heads * min(sequences, sequences_at_once(heads, length))
    values, largest = rows * length * head_size, 0
    sums = 2 * values * 4 if length > QUERIES else 0  # gradients of keys and values over the blocks, in float32
    for queries, end in _blocks(length):
        scores = rows * queries * end
        products = 2 * rows * end * head_size  # a block's gradients of keys and values
        # First the softmax, its gradient and that of the scores. Then the second of these is freed.
        largest = max(largest, 3 * scores * BF16 + (sums if end < length else 0), (2 * scores + products) * BF16 + sums)
    # Contiguous queries, keys, values and gradients; the gradient of the queries; the mask.
    return (5 * values + length**2) * BF16 + largest


def _blocks(length: int) -> list[tuple[int, int]]:
    """Return, for each block, the number of its queries, and the number of keys that they are scored against."""
    starts = range(0, length, QUERIES)
    return [(min(QUERIES, length - start), min(start + QUERIES, length)) for start in starts]


def _scores(heads: int, length: int) -> int:
    """Return how many scores of a sequence exist at a time."""
    return heads * length * min(length, QUERIES)
