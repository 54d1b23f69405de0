"""How many tokens' logits are in memory at a time."""

MAX_LOGITS = {"cpu": 2**22, "cuda": 2**28}
"""Logits that are computed at a time. On a CPU they stay near its caches; a GPU needs large matrices to be busy, and
with 2**28 they take 0.5 GB in bf16."""
MIN_ROWS = 512
"""Fewer tokens at a time make matrices too small: each piece also adds a gradient of the whole output layer."""


def rows_at_a_time(vocab_size: int, device_kind: str) -> int:
    """Return the tokens whose logits are computed at a time on a device of this kind."""
    return max(MIN_ROWS, MAX_LOGITS.get(device_kind, MAX_LOGITS["cpu"]) // vocab_size)
