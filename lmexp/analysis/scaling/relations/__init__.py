"""Laws of other numbers than the loss of a size: a score by the loss, the best learning rate, one loss by another."""
