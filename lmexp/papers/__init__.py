"""Papers: what they claim, the runs that test it, and the verdicts."""
