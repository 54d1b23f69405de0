"""`python -m lmexp.worker RUN_DIR`: train the run that a directory describes; with `--probe`, a few steps of it.

It needs nothing else, so whatever can start a process can run a run: the local queue, a cluster's
scheduler, torchrun, a person.
"""

import os
import sys
from pathlib import Path

from lmexp.collection import imports_kept
from lmexp.orphans import die_with
from lmexp.train.stopping import Signals

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--probe"]):
        sys.exit("usage: python -m lmexp.worker RUN_DIR [--probe]")
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a torchrun that is killed leaves its processes behind
        die_with(os.getppid())
    if sys.argv[2:]:
        with imports_kept():
            from lmexp.train import probe, worker

        worker.leave(probe.main(Path(sys.argv[1])))
    with Signals() as signals:  # before the seconds that imports take
        with imports_kept():
            from lmexp.train import worker

        worker.leave(worker.main(Path(sys.argv[1]), signals))
