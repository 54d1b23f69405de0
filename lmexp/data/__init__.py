"""Text in, tokens on disk, batches out."""
