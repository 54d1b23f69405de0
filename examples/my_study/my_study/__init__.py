"""A study with code of its own."""
