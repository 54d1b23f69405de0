"""Before a sweep runs: what it costs, what fits under a cap, and how well it would identify a law."""
