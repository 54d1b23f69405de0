"""How much of a text a tokenizer loses: the bytes that decoding does not give back, and the tokens that are unknown.

Bits per byte divides by the bytes of the text. A tokenizer that loses text makes it easier to predict and is divided by
the same bytes, so its bits per byte are too low.
"""

from collections import Counter

import numpy as np

from lmexp.data.tokenizers.base import Tokenizer
from lmexp.errors import UserError

MAX_LOST = 0.9
"""A tokenizer that loses more than this share of the text is refused: its scores would say nothing about the text."""


class LostText:
    """Counts what a tokenizer loses of the texts that it has encoded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._bytes = self._lost = self._tokens = self._unknown = 0

    def add(self, text: str, ids: np.ndarray) -> None:
        """Count one text and its tokens, without the token that begins a document."""
        tokenizer = self._tokenizer
        self._bytes += len(text.encode())
        self._tokens += len(ids)
        if tokenizer.is_lossless:
            return
        known = ids
        if tokenizer.unknown_id is not None:
            known = ids[ids != tokenizer.unknown_id]
            self._unknown += len(ids) - len(known)
        decoded = tokenizer.decode(known.tolist())
        if decoded != text:
            missing = Counter(text) - Counter(decoded)
            self._lost += sum(len(character.encode()) * count for character, count in missing.items())

    @property
    def text_lost(self) -> float:
        """Share of the UTF-8 bytes whose characters decoding does not give back, 0 to 1.

        Characters are counted and not aligned. What decoding adds, such as a space in front of a comma, can hide that
        an equal character elsewhere was lost, so the share is a lower bound.
        """
        return self._lost / self._bytes if self._bytes else 0.0

    @property
    def unknown_tokens(self) -> float:
        """Share of the tokens that stand for something unknown, 0 to 1."""
        return self._unknown / self._tokens if self._tokens else 0.0

    def check(self, what: str) -> None:
        """Raise UserError if next to nothing is kept; `what` names the text."""
        if self.text_lost > MAX_LOST:
            raise UserError(
                "the tokenizer keeps next to nothing of the text: "
                f"{facts(self.text_lost, self.unknown_tokens, what)}; choose a tokenizer of this language, or "
                "tokenizer=bpe or tokenizer=byte, which lose nothing"
            )


def facts(text_lost: float, unknown_tokens: float, what: str) -> str:
    """Return in words what is lost of a text, which `what` names."""
    lost = f"decoding does not give back {text_lost:.1%} of the bytes of {what}"
    return f"{lost}, and {unknown_tokens:.1%} of its tokens are unknown" if unknown_tokens else lost
