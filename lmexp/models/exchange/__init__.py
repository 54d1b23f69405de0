"""Weights to and from the format of the transformers library, a family a file.

Four families have none. The library has nothing like the LSTM, alone or as an encoder-decoder, nor like the minGRU. The
nearest to encdec is its Marian, which puts the sines of all wavelengths before the cosines, so every channel of every
weight would have to change its place; and it has no Marian with learned positions, or with norms before each half.
"""
