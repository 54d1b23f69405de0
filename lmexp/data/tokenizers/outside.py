"""A tokenizer from outside lmexp: a small class of the user's, and what makes it one of ours.

The class that a tokenizer config names has four members, and a fifth if it learns from text:

    vocab_size: int                               how many ids it has: 0 to vocab_size - 1
    encode(text: str) -> list[int]
    decode(ids: list[int]) -> str
    state() -> dict                               plain JSON: the keyword arguments that make the same tokenizer again
    @classmethod train(cls, texts, **keys)        makes one from the texts of the training split

Without `train`, it is made with the config's own keys. The ids that begin a document and stand for a hidden token are
lmexp's, and come after the class's own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lmexp.config.code import arguments_of, load_target
from lmexp.config.tokenizers import OutsideTokenizerConfig
from lmexp.data.tokenizers.base import DOCUMENT_TOKEN, Ids, Tokenizer
from lmexp.errors import UserError

MEMBERS = ("encode", "decode", "state")


class OutsideTokenizer(Tokenizer):
    """A user's tokenizer, with lmexp's own ids after it."""

    kind = "outside"

    def __init__(self, target: str, inner: Any) -> None:
        """`target` is the dotted name of the class that `inner` is of. Raises UserError when a member is missing."""
        missing = [name for name in MEMBERS if not callable(getattr(inner, name, None))]
        if missing or not isinstance(getattr(inner, "vocab_size", None), int):
            raise UserError(f"the tokenizer {target} needs {', '.join([*missing, 'vocab_size'])}")
        self.target, self.inner = target, inner
        self.vocab_size: int = inner.vocab_size + 1
        self.bos_id = self.vocab_size - 1
        self.own_mask_id = self.vocab_size

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; one that is none of the tokenizer's becomes U+FFFD."""
        texts: list[str] = []
        own: list[int] = []
        for token in [*ids, None]:
            if token is not None and 0 <= token < self.bos_id:
                own.append(int(token))
                continue
            texts.append(self.inner.decode(own) if own else "")
            texts.append("" if token is None else DOCUMENT_TOKEN if token == self.bos_id else "\ufffd")
            own = []
        return "".join(texts)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """See Tokenizer.spans; each token stands for as many characters as it adds to the decoded text."""
        ids = self.inner.encode(text)
        ends = [min(len(self.inner.decode(ids[: count + 1])), len(text)) for count in range(len(ids))]
        return list(zip([0, *ends], ends, strict=False))

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        encoded = [self._encoded(text) for text in texts]
        for ids in encoded:
            if len(ids) and not 0 <= ids.min() <= ids.max() < self.bos_id:
                raise UserError(f"the tokenizer {self.target} gives ids beyond its vocab_size of {self.bos_id}")
        return [ids.astype(np.uint32) for ids in encoded]

    def _encoded(self, text: str) -> npt.NDArray[np.int64]:
        ids = self.inner.encode(text)
        try:
            return np.asarray(ids, np.int64).reshape(len(ids))
        except (TypeError, ValueError):
            raise UserError(
                f"the tokenizer {self.target} must encode a text as a list of ids; it returned {ids!r:.100}"
            ) from None

    def _state(self) -> dict[str, Any]:
        return {"target": self.target, "state": self.inner.state()}

    def _library(self) -> tuple[dict[str, Any], None]:
        raise UserError(f"the tokenizer {self.target} has no form for transformers")


def build_outside(config: OutsideTokenizerConfig, texts: Iterator[str]) -> OutsideTokenizer:
    """Make the tokenizer that a config names, of `texts` if it learns. Raises UserError as load_target does."""
    loaded = load_target(config.target, "tokenizer")
    keys = arguments_of(config, loaded)
    train = getattr(loaded, "train", None)
    return OutsideTokenizer(config.target, loaded(**keys) if train is None else train(texts, **keys))


def load_outside(target: str, state: dict[str, Any]) -> OutsideTokenizer:
    """Make a tokenizer again from its saved form. Raises UserError when its code is not trusted or not there."""
    return OutsideTokenizer(target, load_target(target, "tokenizer")(**state))
