"""What to train next for a budget or a target loss."""
