"""Weights to and from the format of the transformers library, a family a file.

Two families are without it. The library has nothing like the LSTM. Nearest to encdec is its Marian, which puts the
sines of all wavelengths before the cosines, so every channel of every weight would have to change its place; nor has
it that model with learned positions, or with norms before each half.
"""
