"""What can be done with a study: plan it, run it, report on it.

The commands and the Python API are thin layers over this room: it returns results and prints nothing.
"""
