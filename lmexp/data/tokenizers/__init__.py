"""Text to token ids and back: bytes, characters, byte-pair encoding, WordPiece, or a tokenizer of others."""
