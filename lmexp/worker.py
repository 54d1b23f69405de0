"""`python -m lmexp.worker RUN_DIR`: train the run that a directory describes; with `--trial`, a few steps of it.

It needs nothing else, so whatever can start a process can run a run: the local queue, a cluster's
scheduler, torchrun, a person.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--trial"]):
        sys.exit("usage: python -m lmexp.worker RUN_DIR [--trial]")
    from lmexp.train import trial, worker

    worker.leave((trial.main if sys.argv[2:] else worker.main)(Path(sys.argv[1])))
