"""All that a run needs, imported once by the server from which runs are forked."""

from importlib import import_module

from lmexp.collection import imports_kept

with imports_kept():
    import_module("lmexp.train.probe")
    import_module("lmexp.launch.processes")
