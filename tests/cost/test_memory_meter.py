"""The meter of memory: what training needed at its most."""

import torch

from lmexp.cost.memory_meter import MemoryMeter


def test_memory_is_what_the_process_grew_by_at_its_most():
    meter = MemoryMeter(torch.device("cpu"))
    large = torch.ones(50_000_000)  # 200 MB
    del large
    assert 0.19 < (meter.summary()["peak_memory_gb"] or 0) < 0.3
