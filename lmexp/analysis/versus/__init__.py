"""How much less cost one arm of a study needs for the quality of another: the effective speedup, with its interval."""
