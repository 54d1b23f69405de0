"""The charts of a study and of a fit, as Altair specifications: the page draws them, and export.py writes files."""
