"""How much of a text a tokenizer loses: the bytes that decoding does not give back, and the tokens that are unknown.

Bits per byte divides by the bytes of the text. A tokenizer that loses text makes it easier to predict and is divided by
the same bytes, so its bits per byte are too low.
"""

from collections import Counter

import numpy as np

from lmexp.data.tokenizers.base import Tokenizer
from lmexp.errors import UserError
from lmexp.messages import Say

MAX_LOST = 0.9
"""A tokenizer that loses more than this share of the text is refused: its scores would say nothing about the text."""
WORTH_SAYING = 0.001
"""A smaller share is not worth a warning."""


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

    def check(self, what: str, say: Say) -> None:
        """Warn about text that is lost; `what` names the text. Raises UserError if next to nothing is kept."""
        if max(self.text_lost, self.unknown_tokens) < WORTH_SAYING:
            return
        facts = f"decoding does not give back {self.text_lost:.1%} of the bytes of {what}"
        if self.unknown_tokens:
            facts += f", and {self.unknown_tokens:.1%} of its tokens are unknown"
        if self.text_lost > MAX_LOST:
            raise UserError(
                f"the tokenizer keeps next to nothing of the text: {facts}; choose a tokenizer of this language, or "
                "tokenizer=bpe or tokenizer=byte, which lose nothing"
            )
        say(f"warning: the tokenizer loses text: {facts}; do not compare its bits per byte with other tokenizers")
