"""WordPiece: words in the longest entries that spell them, as BERT has it, trained here.

Text is split as BERT does (Devlin et al. 2018). What is decoded may differ from what was encoded: white space is made
alike, and a word that cannot be spelled is lost.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lmexp.config.tokenizers import WORDPIECE_LEAST
from lmexp.data.scripts import UNSPACED
from lmexp.data.tokenizers.base import DOCUMENT_TOKEN, Ids, Tokenizer, as_ids
from lmexp.data.tokenizers.training import Key, UnsupportedSize, bounded, too_small_a_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LibraryTokenizer

UNKNOWN_TOKEN = "[UNK]"


class WordPieceTokenizer(Tokenizer):
    """WordPiece: each word in the longest entries that spell it, those inside a word marked by ##.

    Text is split as by BERT: at white space, at punctuation, and around each Chinese character. A word that cannot be
    spelled is [UNK]. The document token and the mask are the ids past the entries.
    """

    kind = "wordpiece"

    def __init__(self, tokens: Sequence[str]) -> None:
        from tokenizers import decoders, models

        self.tokens = list(tokens)
        vocabulary = {token: i for i, token in enumerate(self.tokens)}
        if UNKNOWN_TOKEN not in vocabulary:
            raise ValueError(f"no {UNKNOWN_TOKEN} among the tokens")
        self._model = _bert_split(models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN_TOKEN))
        self.unknown_id = vocabulary[UNKNOWN_TOKEN]
        self._decoder = decoders.WordPiece(cleanup=True)
        self.bos_id = len(self.tokens)
        self.vocab_size = self.own_mask_id = self.bos_id + 1

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words of ids with spaces between them, as far as people write these; U+FFFD for an unknown id."""
        tokens = [*self.tokens, DOCUMENT_TOKEN]
        words = self._decoder.decode([tokens[i] if 0 <= i < len(tokens) else "\ufffd" for i in ids])
        return _NEEDLESS_SPACE.sub("", words)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """See Tokenizer.spans."""
        return list(self._model.encode(text).offsets)

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [as_ids(e.ids) for e in self._model.encode_batch_fast(list(texts))]

    def _state(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    def _library(self) -> tuple[dict[str, Any], str]:
        library = json.loads(self._model.to_str())
        return library | {"decoder": json.loads(self._decoder.__getstate__())}, UNKNOWN_TOKEN


_NEEDLESS_SPACE = re.compile(f"(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")


def train_wordpiece(vocab_size: int, texts: Callable[[], Iterable[str]], key: Key = "tokenizer") -> WordPieceTokenizer:
    """Return a tokenizer with so many entries, for the section `key` of a config.

    `texts` gives the texts anew at each call, because they are read twice. Raises UnsupportedSize if these do not
    support as many entries, or have more characters, and UserError if they support fewer than WORDPIECE_LEAST.
    """
    from tokenizers import models, trainers

    model = _bert_split(models.WordPiece(unk_token=UNKNOWN_TOKEN))
    assert model.normalizer is not None and model.pre_tokenizer is not None
    counts: Counter[str] = Counter()
    inside: set[str] = set()  # characters that occur after the first of a word
    for text in texts():
        for word, _ in model.pre_tokenizer.pre_tokenize_str(model.normalizer.normalize_str(text)):
            counts.update(word)
            inside.update(word[1:])
    alphabet = sorted(character for character, count in counts.items() if count > 1)  # seen once is no statistic
    # The trainer numbers characters inside words in no fixed order, and breaks ties between merges by these numbers;
    # named beforehand, they have theirs.
    first = [UNKNOWN_TOKEN, *(f"##{character}" for character in alphabet if character in inside)]
    least = len(first) + len(alphabet) + 1  # and the document token
    if vocab_size < least:
        problem = (
            f"a vocabulary of {vocab_size} does not hold the characters of the training text, which begin words "
            f"and stand inside; set {key}.vocab_size={least} or higher"
        )
        raise UnsupportedSize({key: (least, problem)})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        special_tokens=first,
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    model.train_from_iterator((part for text in texts() for part in bounded(text)), trainer)
    vocabulary = json.loads(model.to_str())["model"]["vocab"]
    entries = len(vocabulary) + 1
    if entries < vocab_size:
        if entries < WORDPIECE_LEAST:
            raise too_small_a_text("wordpiece", WORDPIECE_LEAST, entries, key, "char")
        problem = f"a vocabulary of {vocab_size} is larger than the text supports: {entries} entries found; "
        raise UnsupportedSize({key: (entries, problem + f"set {key}.vocab_size={entries} or lower")})
    return WordPieceTokenizer(sorted(vocabulary, key=vocabulary.get))


def _bert_split(model: Any) -> "LibraryTokenizer":
    """Return BERT's pipeline around a model: its cleaning and splitting, letters and accents left as they are."""
    from tokenizers import Tokenizer as LibraryTokenizer
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = LibraryTokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
