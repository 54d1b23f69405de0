"""The tests of lmexp.

Tests run side by side, a process a core. numpy's matrix products would start a thread a core in each of them, and
threads that wait for each other took five times the processor time of one. numpy reads this when it is imported.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
