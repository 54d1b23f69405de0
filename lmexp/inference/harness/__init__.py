"""Scores on tasks of lm-eval: the model with its interface, its tasks and the user's own, and the run."""
