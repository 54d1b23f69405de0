"""Using a model: what it costs to run, in the precision it was trained in and in smaller ones."""
