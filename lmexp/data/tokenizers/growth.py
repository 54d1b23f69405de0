"""How much longer a tokenizer of others can make a text before it is cut into tokens, and ids when they are decoded.

A `tokenizer.json` is a short program: steps that replace, prefix and spell out characters, one after the other. Thirty
steps that each double a text make gigabytes of one sentence, so what the steps can do together is bounded when the file
is read.
"""

import base64
from typing import Any

from lmexp.errors import UserError

MAX_GROWTH = 200.0
"""Published tokenizers stay below 150: compatibility forms of Unicode (33 bytes for one character) are the most."""
BYTES_OF_A_CHARACTER = 4
_PARTS = ("normalizers", "pretokenizers", "decoders")
"""Keys under which a sequence has its steps."""


def check_growth(library: dict[str, Any]) -> None:
    """Raise UserError for the content of a tokenizer.json whose steps can make a text too long."""
    encoding = growth(library.get("normalizer")) * growth(library.get("pre_tokenizer"))
    if max(encoding, growth(library.get("decoder"))) > MAX_GROWTH:
        raise UserError(
            f"the steps of this tokenizer.json can make a text more than {MAX_GROWTH:g} times as long, which no "
            "tokenizer in use does: it would exhaust the memory"
        )


def growth(step: Any) -> float:
    """Return an upper bound of how many times longer a step makes a text; what it puts in front counts as a multiple.

    Args:
        step: a normalizer, pre_tokenizer or decoder as in a tokenizer.json, or None.
    """
    if not isinstance(step, dict):
        return 1.0
    match step.get("type"):
        case "Sequence":
            total = 1.0
            for part in next((step[key] for key in _PARTS if key in step), []):
                total *= growth(part)
            return total
        case "Replace":
            pattern, content = step["pattern"], step["content"]
            # A regular expression may match one character, or the nothing before each.
            if "String" in pattern:
                return max(1.0, len(content) / max(1, len(pattern["String"])))
            return 1.0 + len(content)
        case "Prepend":
            return 1.0 + len(step["prepend"])
        case "Metaspace":
            return 2.0
        case "ByteLevel":
            return BYTES_OF_A_CHARACTER
        case "BertNormalizer":
            return 3.0  # a space on both sides of a Chinese character
        case "Precompiled":
            return _growth_of_map(step.get("precompiled_charsmap") or "")
    return 1.0


def _growth_of_map(encoded: str) -> float:
    """Return the longest replacement of a SentencePiece map: the size of a trie, the trie, texts that end in a null."""
    content = base64.b64decode(encoded)
    texts = content[4 + int.from_bytes(content[:4], "little") :]
    return max([1.0, *(float(len(text)) for text in texts.split(b"\0"))])
