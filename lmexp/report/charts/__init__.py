"""The charts of a study, by Altair: the page draws them, and files of them are written (export.py)."""
