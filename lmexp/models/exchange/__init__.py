"""Weights to and from the format of the transformers library, a family a file.

Three families have none. The library has nothing like the LSTM or the minGRU. The nearest to encdec is its Marian,
which puts the sines of all wavelengths before the cosines, so every channel of every weight would have to change its
place; and it has no Marian with learned positions, or with norms before each half.
"""
