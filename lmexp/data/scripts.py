"""Which characters belong to scripts that are written without spaces between words."""

import re
import unicodedata
from itertools import pairwise

UNSPACED = (
    "\u2e80-\u2fdf"  # radicals
    "\u3000-\u30ff"  # punctuation of Chinese and Japanese, hiragana, katakana
    "\u31c0-\u31ff"  # strokes, more katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Chinese characters
    "\ufe30-\ufe4f\uff01-\uff60\uffe0-\uffe6"  # compatibility and full-width forms
    "\U00020000-\U0003ffff"  # rarer Chinese characters
)
"""Ranges for a regex's character class: Chinese and Japanese, by the blocks of Unicode 15. Korean puts spaces."""

SOUTH_EAST_ASIAN = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
)
"""The same for scripts that put spaces between sentences and not between words. Their vowels may be marks."""
_BLOCKS = (range(0x0E00, 0x0F00), range(0x1000, 0x10A0), range(0xA9E0, 0xAA80), range(0x1780, 0x1800))
_MARKS = "".join(chr(c) for block in _BLOCKS for c in block if unicodedata.category(chr(c)).startswith("M"))
CHARACTER = f"[{UNSPACED}]|[{SOUTH_EAST_ASIAN}][{_MARKS}]*"
"""A pattern for one character, with its marks, of a script without spaces between words."""

IS_UNSPACED = re.compile(f"[{UNSPACED}]")
WORD = re.compile(f"{CHARACTER}|[^\\s{UNSPACED}{SOUTH_EAST_ASIAN}]+")
"""A word: characters between white space or, in scripts without spaces, each single character."""


def separated(words: list[str]) -> list[str]:
    """Return words with a space in front of each that needs one to stand apart from the word before it.

    None is put before the first, nor where one of the two characters that meet is Chinese or Japanese: there no
    space is written, and the change of script shows the border. Joined, the result is the sentence as people write it.
    """
    return words[:1] + [
        word if IS_UNSPACED.match(before[-1:]) or IS_UNSPACED.match(word) else f" {word}"
        for before, word in pairwise(words)
    ]
