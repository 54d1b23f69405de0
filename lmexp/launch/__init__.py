"""From cells to processes: study, queue, slots."""
