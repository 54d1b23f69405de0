"""One run: budget, schedule, optimizer, callbacks, checkpoints."""
