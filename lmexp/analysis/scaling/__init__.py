"""Scaling laws: from a study's runs to what a run that nobody has paid for yet would give, with its uncertainty."""
