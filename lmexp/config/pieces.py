"""For how many tokens the logits are in memory at a time."""

MAX_LOGITS = {"cpu": 2**22, "cuda": 2**28}
"""How many logits are computed at a time. On a CPU, few logits fit the caches better; a GPU needs large matrices to be
busy, and 2**28 logits take 0.5 GB in bf16."""
MIN_ROWS = 512
"""At least so many tokens are in a piece. Smaller matrices would be slow, and each piece adds a gradient of the whole
output layer."""


def rows_at_a_time(vocab_size: int, device_kind: str) -> int:
    """Return the number of tokens whose logits are computed at a time on a device of this kind."""
    return max(MIN_ROWS, MAX_LOGITS.get(device_kind, MAX_LOGITS["cpu"]) // vocab_size)
