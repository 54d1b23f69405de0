"""`python -m lmexp.worker RUN_DIR`: train the run that a directory describes.

It needs nothing else, so whatever can start a process can run a run: the local queue, a cluster's
scheduler, torchrun, a person.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lmexp.worker RUN_DIR")
    from lmexp.train.worker import main

    sys.exit(main(Path(sys.argv[1])))
