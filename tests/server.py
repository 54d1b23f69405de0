"""What the server imports from which the commands of tests are forked; `tests/conftest.py` imports it too.

That is all that lmexp's own server imports, and what commands import to plan and to report: pandas and Altair take a
second of each command.

The first run of a machine measures its peak FLOP/s for about a second. In tests, where each run has an `outputs` of its
own, that would be half of their time, so they multiply a small matrix. Tests of the peak itself choose their own sizes.

Hydra takes a tenth of a second to compose a config, and most tests need one of a few. Each process composes them once.
"""

import gc
import os
import sys
import tempfile
import zlib
from importlib import import_module
from pathlib import Path

import rich.live  # noqa: F401
import tabulate  # noqa: F401
import torch
import typer  # noqa: F401
import vl_convert
from omegaconf import DictConfig

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.cost import contention, peaks
from lmexp.files import write_atomically
from lmexp.launch.processes import PRELOAD
from tests.cuda_calls import recorded_cuda_calls

USED_BY_COMMANDS = ("lmexp.study.run", "lmexp.study.plan", "lmexp.report.terminal.plan", "lmexp.report.charts.export")
IS_FRESH = "lmexp.train.probe" not in sys.modules and "pytorch_lightning" not in sys.modules
"""Whether the imports below are the first ones of this process, so that CUDA_CALLS holds all that they do."""
with recorded_cuda_calls() as CUDA_CALLS:
    for name in PRELOAD:
        import_module(name)
for name in USED_BY_COMMANDS:
    import_module(name)

SHIPPED = [paths.shipped_root()]
COMPOSED: dict[tuple[str, ...], DictConfig] = {}
"""What Hydra has composed from lmexp's own files, which no test changes. Tests of composing itself empty it first."""
_compose_groups = Composer._compose_groups


def composed_once(composer: Composer, words: tuple[str, ...]) -> DictConfig:
    """Return what Hydra composes from these words. It is shared: `Composer` changes only a copy of it."""
    if composer.sweep_file or composer.roots != SHIPPED or any("$" in word or "hydra" in word for word in words):
        return _compose_groups(composer, words)
    if words not in COMPOSED:
        COMPOSED[words] = _compose_groups(composer, words)
    return COMPOSED[words]


Composer._compose_groups = composed_once  # type: ignore[method-assign]
Composer(SHIPPED).config({})  # finds Hydra's plug-ins and reads most files, which each command would do again
gc.freeze()

# Tests run side by side, a process a core. Threads that wait for each other there make training many times slower.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

peaks.MATMUL_SIZES["cpu"] = (256,)
peaks.MATMUL_SECONDS = 0.3
contention.SAMPLE_SECONDS = 0.05

_javascript_bundle = vl_convert.javascript_bundle


def bundle_of_session(snippet: str) -> str:
    """Return Vega's script for the page of a report, which takes a second to make, and is the same for every page.

    It is kept in a file, because a process that has run JavaScript cannot be forked.
    """
    file = Path(tempfile.gettempdir()) / f"vega-{zlib.crc32(snippet.encode()):x}.js"
    if not file.exists():
        write_atomically(file, _javascript_bundle(snippet))
    return file.read_text()


vl_convert.javascript_bundle = bundle_of_session
