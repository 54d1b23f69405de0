"""Which characters belong to scripts that are written without spaces between words."""

import re
import unicodedata
from itertools import pairwise

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters, by the blocks of Unicode 15: unified ideographs, their extensions and compatibility forms. This,
and what follows, are ranges for a regex's character class."""
_FULL_WIDTH_KANA = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
KANA = f"{_FULL_WIDTH_KANA}\uff66-\uff9f"
"""Japanese syllables and marks of repetition."""
_SYMBOLS = (
    "\u2e80-\u2fdf"  # radicals
    "\u3000-\u3004\u3008-\u303f"  # punctuation
    "\u31c0-\u31ef"  # strokes
    "\ufe30-\ufe4f\uff01-\uff60\uffe0-\uffe6"  # compatibility and full-width forms
)
UNSPACED = f"{HAN}{_FULL_WIDTH_KANA}{_SYMBOLS}"
"""Chinese and Japanese with their punctuation. Korean puts spaces."""

_SOUTH_EAST_ASIAN = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0x1780, 0x17FF),  # Khmer
    (0x19E0, 0x19FF),
)
SOUTH_EAST_ASIAN = "".join(f"{chr(first)}-{chr(last)}" for first, last in _SOUTH_EAST_ASIAN)
"""The same for scripts that put spaces between sentences and not between words. Their vowels may be marks."""
_MARKS = "".join(
    chr(code)
    for first, last in _SOUTH_EAST_ASIAN
    for code in range(first, last + 1)
    if unicodedata.category(chr(code)).startswith("M")
)
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
