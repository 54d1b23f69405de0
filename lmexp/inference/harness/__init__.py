"""Through lm-eval: a model of this package as it wants one, its tasks and the user's own, and their scores."""
