"""What the server imports from which the commands of tests are forked; `tests/conftest.py` imports it too.

The first run of a machine measures its peak FLOP/s for about a second. In tests, where each run has an `outputs` of its
own, that would be half of their time, so they multiply a small matrix. Tests of the peak itself choose their own sizes.
"""

import os
import sys
from importlib import import_module

import rich.live  # noqa: F401
import torch
import typer  # noqa: F401

from lmexp.cost import peaks
from lmexp.launch.processes import PRELOAD
from tests.cuda_calls import recorded_cuda_calls

IS_FRESH = PRELOAD[0] not in sys.modules and "pytorch_lightning" not in sys.modules
"""Whether the imports below are the first ones of this process, so that CUDA_CALLS holds all that they do."""
with recorded_cuda_calls() as CUDA_CALLS:
    for name in PRELOAD:
        import_module(name)

# Tests run side by side, a process a core. Threads that wait for each other there make training many times slower.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

peaks.MATMUL_SIZES["cpu"] = (256,)
peaks.MATMUL_SECONDS = 0.3
