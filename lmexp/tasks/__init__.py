"""What is predicted, the loss and the scores, as LightningModules."""
