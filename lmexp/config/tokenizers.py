"""Tokenizer configs: what a token is."""

from typing import Annotated, Literal

from pydantic import Field

from lmexp.config.base import BY_ORIGIN, OUTSIDE, SHIPPED, OutsideSection, Section


class ByteTokenizerConfig(Section):
    """One token a UTF-8 byte, and one that begins a document."""

    kind: Literal["byte"]


class CharTokenizerConfig(Section):
    """One token for each character that occurs in the text, and one that begins a document."""

    kind: Literal["char"]


AUTO_ENTRIES = 2048
"""What `vocab_size=auto` stands for, if the training split supports as many entries."""


BPE_LEAST = 258
"""Entries: the 256 bytes, the document token and one merge."""


class BPETokenizerConfig(Section):
    """Byte-level byte-pair encoding, trained on the training split."""

    kind: Literal["bpe"]
    vocab_size: Annotated[int, Field(ge=BPE_LEAST, le=1_000_000)] | Literal["auto"]
    """Entries, the 256 bytes and the document token included. `auto` stands for AUTO_ENTRIES, or for as many as a small
    training split supports, and is replaced by the number when the config is resolved."""


WORDPIECE_LEAST = 100
"""Entries; fewer would hardly be more than the characters."""


class WordPieceTokenizerConfig(Section):
    """WordPiece (Schuster and Nakajima 2012), as BERT has it, trained on the training split.

    Characters that the training split does not have become one token for the unknown: what is decoded may differ
    from what was encoded, in white space too.
    """

    kind: Literal["wordpiece"]
    vocab_size: Annotated[int, Field(ge=WORDPIECE_LEAST, le=1_000_000)] | Literal["auto"]
    """Entries. `auto` is as for bpe; if the characters alone need more than AUTO_ENTRIES, it stands for what they need.
    """


class HFTokenizerConfig(Section):
    """A fast tokenizer of the Hugging Face libraries, as it is."""

    kind: Literal["hf"]
    name: str
    """A folder with a tokenizer.json, or a name on the hub."""
    revision: str | None = None
    fingerprint: str | None = None
    """Hash of its tokenizer.json, filled in when the config is resolved; stands for the folder in identities."""


class SavedTokenizerConfig(Section):
    """The tokenizer that another run has used, from its tokenizer.json."""

    kind: Literal["saved"]
    path: str
    fingerprint: str | None = None
    """Hash of it, filled in when the config is resolved; stands for the path in identities."""


class OutsideTokenizerConfig(OutsideSection):
    """A tokenizer from outside: a class as data/tokenizers/outside.py describes it."""

    @property
    def kind(self) -> str:
        """The class's dotted name."""
        return self.target


ShippedTokenizer = Annotated[
    ByteTokenizerConfig
    | CharTokenizerConfig
    | BPETokenizerConfig
    | WordPieceTokenizerConfig
    | HFTokenizerConfig
    | SavedTokenizerConfig,
    Field(discriminator="kind"),
]
TokenizerConfig = Annotated[
    Annotated[ShippedTokenizer, SHIPPED] | Annotated[OutsideTokenizerConfig, OUTSIDE], BY_ORIGIN
]
