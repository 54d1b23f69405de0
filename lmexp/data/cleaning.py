"""The cleaning of texts before they are split and tokenised, if a config sets it.

The steps run in this order: Unicode normal form, personal data (pii.py), lower case, stop words, length, duplicates.
Duplicates are recognised by a hash of 16 bytes, so memory grows with the number of texts and not with their length.

A stop word of a script without spaces (Chinese) is removed wherever its characters occur, longest words first, so
also from inside other words: 目的 loses its 的. If the config asks for it, jieba first cuts the text into words, and a
stop word is removed where it is one of these. Any other stop word is removed where it is a whole word, in upper or
lower case, with the spaces in front of it.
"""

import hashlib
import logging
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Set

from lmexp.config.data import CleanConfig, DataSection
from lmexp.data.example_files import Example
from lmexp.data.pii import PersonalData
from lmexp.data.scripts import IS_UNSPACED
from lmexp.data.stop_words import LISTS
from lmexp.errors import UserError, nearest
from lmexp.files import hash_text, lines_of, user_path


class Cleaner:
    """Cleans the texts of one source in one pass, and remembers them to recognise duplicates."""

    def __init__(self, data: DataSection) -> None:
        """Raises UserError for a step that the kind of data does not allow, or a list that cannot be read."""
        self._clean = clean = data.clean
        if data.holds == "tags":
            _check_words_stay(clean)
        self._stop = _StopWords(stop_words(clean.stop_words), clean.segment is not None) if clean.stop_words else None
        self._pii = PersonalData(clean) if clean.pii else None
        self._seen: set[bytes] = set()

    @property
    def pii(self) -> dict[str, int] | None:
        """How often each kind of personal data was found so far; None if none is looked for."""
        return dict(self._pii.count) if self._pii else None

    def document(self, text: str) -> str | None:
        """Return the cleaned text; None if it is dropped."""
        before = self.pii
        text = self._text(text)
        return text if self._may_stay(before) and self._fits(text) and self._is_new(text) else None

    def example(self, example: Example) -> Example | None:
        """Return the cleaned example; None if it is dropped, also because one of its texts is blank."""
        before = self.pii
        cleaned = example.with_texts(self._text)
        texts = cleaned.texts
        if not self._may_stay(before) or not all(text.strip() and self._fits(text) for text in texts):
            return None
        return cleaned if self._is_new("\0".join((*texts, *cleaned.answer))) else None

    def _text(self, text: str) -> str:
        clean = self._clean
        if clean.unicode:
            text = unicodedata.normalize("NFC" if clean.unicode == "nfc" else "NFKC", text)
        if self._pii:
            text = self._pii.replaced(text)
        if clean.lowercase:
            text = text.lower()
        return self._stop.removed_from(text) if self._stop else text

    def _may_stay(self, found_before: dict[str, int] | None) -> bool:
        """Whether a text stays although personal data was found in it, or none was found since `found_before`."""
        return self._clean.pii_mode != "drop" or self.pii == found_before

    def _fits(self, text: str) -> bool:
        shortest, longest = self._clean.min_characters, self._clean.max_characters
        return len(text) >= (shortest or 0) and (longest is None or len(text) <= longest)

    def _is_new(self, text: str) -> bool:
        if not self._clean.deduplicate:
            return True
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True


class _StopWords:
    """Removes words from texts."""

    def __init__(self, words: frozenset[str], is_segmented: bool) -> None:
        """Raises UserError if texts are to be segmented, and cannot be, or no word needs that."""
        unspaced = unspaced_of(words)
        if is_segmented and not unspaced:
            raise UserError("data.clean.segment=jieba: none of the stop words is Chinese or Japanese")
        self._unspaced_words = unspaced
        self._cut = _segmenter() if is_segmented else None
        # An apostrophe or a hyphen between letters is part of the word: `on-line` does not contain `on`.
        whole = rf"(?<!\w)(?<!\w['\u2019-]){_any_of(words - unspaced)}(?!\w)(?!['\u2019-]\w)"
        self._at_start = re.compile(rf"^(?:{whole}[ \t]*)+", re.IGNORECASE | re.MULTILINE)
        self._whole = re.compile(rf"[ \t]*{whole}", re.IGNORECASE)
        self._unspaced = re.compile(_any_of(unspaced))

    def removed_from(self, text: str) -> str:
        text = self._whole.sub("", self._at_start.sub("", text))
        if self._cut is None:
            return self._unspaced.sub("", text)
        return "".join(word for word in self._cut(text) if word not in self._unspaced_words)


def _segmenter() -> Callable[[str], Iterable[str]]:
    """Return a function that cuts a text into words, which make up the text. Raises UserError without jieba."""
    try:
        import jieba
    except ImportError:
        raise UserError("data.clean.segment=jieba needs jieba: pip install 'lmexp[chinese]'") from None
    jieba.setLogLevel(logging.WARNING)  # it announces its dictionary
    tokenizer = jieba.Tokenizer()
    with (
        tempfile.TemporaryDirectory() as own
    ):  # it reads a cache from the folder for temporary files, where anybody writes
        tokenizer.tmp_dir = own
        tokenizer.initialize()
    cut: Callable[[str], Iterable[str]] = tokenizer.cut
    return cut


def unspaced_of(words: Set[str]) -> set[str]:
    """Return those of some words that are of a script without spaces between words."""
    return {word for word in words if IS_UNSPACED.search(word)}


def _any_of(words: Set[str]) -> str:
    """Return a pattern for any of these words, longest first; without words, it matches nothing."""
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    either_apostrophe = [re.escape(word).replace("'", "['\u2019]") for word in longest_first]
    return f"(?:{'|'.join(either_apostrophe)})" if words else "(?!)"


def stop_words(name: str) -> frozenset[str]:
    """Return the words of a list that lmexp ships, or of a file with one word in each line. Raises UserError."""
    if name in LISTS:
        return LISTS[name]
    path = user_path(name)
    if not path.is_file():
        known = ", ".join(LISTS)
        raise UserError(f"data.clean.stop_words={name}: no such file, and the lists are {known}.{nearest(name, LISTS)}")
    try:
        lines = lines_of(path.read_bytes().decode("utf-8-sig"))
        words = frozenset(line.strip() for line in lines if line.strip())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not valid UTF-8 at byte {error.start} of the file") from error
    if not words:
        raise UserError(f"{path}: the list of stop words is empty")
    return words


def fingerprint(name: str) -> str:
    """Return the SHA-256 of the words of a list, which does not depend on their order. Raises UserError."""
    return hash_text("\n".join(sorted(stop_words(name))))


def _check_words_stay(clean: CleanConfig) -> None:
    """Raise UserError for a step that would remove words that have tags, or whole sentences."""
    for name, value in clean.model_dump(exclude={"unicode", "lowercase"}, exclude_defaults=True).items():
        raise UserError(
            f"data.clean.{name}={value}: a tagged sentence keeps its words; only unicode and lowercase go with tags"
        )
