"""What the server imports from which runs are forked: all that a run needs."""

from importlib import import_module

from lmexp.collection import imports_kept

with imports_kept():
    import_module("lmexp.train.probe")
    import_module("lmexp.launch.processes")
