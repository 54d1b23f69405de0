"""What is done to every text before it is split or tokenised, where a config asks for it.

In this order: Unicode normal form, lower case, stop words, length, duplicates. Duplicates are found by a hash of 16
bytes, so memory grows with the number of texts and not with their length.

A stop word that is written without spaces around it (Chinese) is taken out wherever its characters stand, the longest
such word first. Sentences are not segmented into words, so one that happens to be a part of another word is taken out
of that too: 目的 loses its 的. Any other stop word is taken out where it stands as a whole word, in either case, with
the blanks in front of it.
"""

import hashlib
import re
import unicodedata
from collections.abc import Set
from pathlib import Path

from lmexp.config.data import CleanConfig, DataSection
from lmexp.data.example_files import Example
from lmexp.data.scripts import IS_UNSPACED
from lmexp.data.stop_words import LISTS
from lmexp.errors import UserError, nearest
from lmexp.files import hash_text


class Cleaner:
    """Cleans the texts of one source in one pass: it remembers which it has seen."""

    def __init__(self, data: DataSection) -> None:
        """Raises UserError for a step that does not go with the data, or a list that cannot be read."""
        self._clean = clean = data.clean
        if data.holds == "tags":
            _check_words_stay(clean)
        self._stop = _StopWords(stop_words(clean.stop_words)) if clean.stop_words else None
        self._seen: set[bytes] = set()

    def document(self, text: str) -> str | None:
        """Return a cleaned text; None when it is left out."""
        text = self._text(text)
        return text if self._fits(text) and self._is_new(text) else None

    def example(self, example: Example) -> Example | None:
        """Return a cleaned example; None when it is left out, as it is when one of its texts is blank."""
        cleaned = example.with_texts(self._text)
        texts = cleaned.texts
        if not all(text.strip() and self._fits(text) for text in texts):
            return None
        return cleaned if self._is_new("\0".join((*texts, *cleaned.answer))) else None

    def _text(self, text: str) -> str:
        clean = self._clean
        if clean.unicode:
            text = unicodedata.normalize("NFC" if clean.unicode == "nfc" else "NFKC", text)
        if clean.lowercase:
            text = text.lower()
        return self._stop.removed_from(text) if self._stop else text

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
    """Takes words out of texts."""

    def __init__(self, words: frozenset[str]) -> None:
        unspaced = {word for word in words if IS_UNSPACED.search(word)}
        # An apostrophe or a hyphen between letters is a part of the word: `on-line` does not hold `on`.
        whole = rf"(?<!\w)(?<!\w['\u2019-]){_any_of(words - unspaced)}(?!\w)(?!['\u2019-]\w)"
        self._at_start = re.compile(rf"^(?:{whole}[ \t]*)+", re.IGNORECASE | re.MULTILINE)
        self._whole = re.compile(rf"[ \t]*{whole}", re.IGNORECASE)
        self._unspaced = re.compile(_any_of(unspaced))

    def removed_from(self, text: str) -> str:
        return self._unspaced.sub("", self._whole.sub("", self._at_start.sub("", text)))


def _any_of(words: Set[str]) -> str:
    """Return a pattern of any of these words, the longest first; of none, one that matches nothing."""
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    either_apostrophe = [re.escape(word).replace("'", "['\u2019]") for word in longest_first]
    return f"(?:{'|'.join(either_apostrophe)})" if words else "(?!)"


def stop_words(name: str) -> frozenset[str]:
    """Return the words of a list of ours, or of a file with one a line. Raises UserError."""
    if name in LISTS:
        return LISTS[name]
    path = Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(LISTS)
        raise UserError(f"data.clean.stop_words={name}: no such file, and the lists are {known}.{nearest(name, LISTS)}")
    try:
        words = frozenset(line.strip() for line in path.read_bytes().decode("utf-8-sig").split("\n") if line.strip())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not valid UTF-8 at byte {error.start} of the file") from error
    if not words:
        raise UserError(f"{path}: the list of stop words is empty")
    return words


def fingerprint(name: str) -> str:
    """Return the SHA-256 of a list's words, in whatever order they stand. Raises UserError."""
    return hash_text("\n".join(sorted(stop_words(name))))


def _check_words_stay(clean: CleanConfig) -> None:
    """Raise UserError for what would take words from under their tags, or sentences out of the count."""
    for name, value in clean.model_dump(exclude={"unicode", "lowercase"}, exclude_defaults=True).items():
        raise UserError(
            f"data.clean.{name}={value}: a tagged sentence keeps its words; only unicode and lowercase go with tags"
        )
