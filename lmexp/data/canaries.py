"""Canaries: random texts that are added to the training split, to measure what a model memorises.

A canary is a document of 24 random lower-case letters, because nearly every tokenizer can spell letters. There are
2^113 such texts, all equally likely, so no stored text contains a canary by chance. Only memorisation can make a model
prefer a canary to other texts of this form (Carlini et al. 2019, "The Secret Sharer").

Copies of a canary are put between the documents of the training split, at places that are uniform over its characters.
No document is cut. Validation and test splits do not change, nor does a tokenizer that is trained on the text. The
letters of a canary and the places of its copies depend only on the seed, its repeats and its number. So canaries stay
the same if a config asks for more of them, or for other repeats as well.

Random bits come from numpy's PCG64, whose stream never changes between versions (NEP 19).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np

from lmexp.config.data import CANARY_LETTERS, MAX_CANARY_TOKENS, CanariesConfig, Split
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.errors import UserError

N_REFERENCES = 1023
"""Random texts of the same form that a canary is ranked among. With the canary itself they are 2^10."""
_CANARY, _REFERENCES = 0, 1
"""What a stream of random bits is for."""


@dataclass(frozen=True)
class Canary:
    """One canary."""

    text: str
    repeats: int
    """How many times it is planted."""
    places: tuple[int, ...]
    """A random number for each copy, from which `planted` computes its place."""


def canaries_of(config: CanariesConfig) -> list[Canary]:
    """Return all canaries of a config, those with the fewest repeats first."""
    return [_canary(config.seed, repeats, number) for repeats in config.repeats for number in range(config.count)]


def references_of(config: CanariesConfig) -> list[str]:
    """Return random texts of the same form, which are not planted."""
    bits = np.random.PCG64(np.random.SeedSequence(config.seed, spawn_key=(_REFERENCES,)))
    return [_letters(bits) for _ in range(N_REFERENCES)]


def _canary(seed: int, repeats: int, number: int) -> Canary:
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_CANARY, repeats, number)))
    return Canary(_letters(bits), repeats, tuple(bits.random_raw(repeats).tolist()))


def _letters(bits: np.random.PCG64) -> str:
    return "".join(ascii_lowercase[number] for number in bits.random_raw(CANARY_LETTERS) % len(ascii_lowercase))


def planted(
    documents: Iterable[tuple[Split, str]], config: CanariesConfig, characters: int
) -> Iterator[tuple[Split, str]]:
    """Yield documents, each with its split, and between them the copies of the canaries as documents of training.

    A copy follows the training document that holds the character at its place, so no copy comes first.

    Args:
        documents: all documents.
        characters: length of those of the training split.
    """
    copies = sorted((place % characters, canary.text) for canary in canaries_of(config) for place in canary.places)
    position = done = 0
    for split, text in documents:
        yield split, text
        if split == "train":
            position += len(text)
            while done < len(copies) and copies[done][0] < position:
                yield "train", copies[done][1]
                done += 1


def planted_tokens(config: CanariesConfig, tokenizer: Tokenizer) -> int:
    """Return how many tokens all copies have, the token that begins each document included.

    Raises UserError if the tokenizer cannot spell canaries: the model could not distinguish them from other texts.
    """
    canaries = canaries_of(config)
    encoded = tokenizer.encode_batch([canary.text for canary in canaries] + references_of(config))
    for ids in encoded:
        if len(ids) > MAX_CANARY_TOKENS or (tokenizer.unknown_id is not None and tokenizer.unknown_id in ids):
            raise UserError(
                f"data.canaries: this tokenizer cannot spell {CANARY_LETTERS} random letters from a to z; "
                "tokenizer=byte and tokenizer=bpe can"
            )
    return sum(canary.repeats * (len(ids) + 1) for canary, ids in zip(canaries, encoded, strict=False))
