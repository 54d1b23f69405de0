"""What an axis changes, and whether the difference is larger than the noise between seeds."""
