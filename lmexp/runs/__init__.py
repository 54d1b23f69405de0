"""What a run leaves on disk: its directory, state, curve and record."""
