"""Mirrors of runs in W&B, TensorBoard, MLflow, or a tool of the user's own."""
