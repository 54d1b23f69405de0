"""Results as files and documents for other programs."""
