"""All that a run needs, imported once by the server from which runs are forked."""

import signal
from importlib import import_module

from lmexp.collection import imports_kept

# Ctrl-C reaches all processes of the terminal, and the command answers it. multiprocessing lets this server ignore it
# only after the imports, and gives the runs the handler that it finds then, so that one must be back by that time.
_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
try:
    with imports_kept():
        import_module("lmexp.train.probe")
        import_module("lmexp.launch.processes")
finally:
    signal.signal(signal.SIGINT, _handler)
