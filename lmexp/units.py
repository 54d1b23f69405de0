"""Numbers and texts as people read them."""

import math
import re
from collections.abc import Sequence

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that would move a terminal's cursor, colour it or turn the direction of a line, and halves of characters,
which no encoding has. A tab and the end of a line are not among them."""


MAX_EXPONENT = 18
"""From 1e18 on, numbers are powers of ten, as papers write FLOPs; below, they have an SI prefix."""


def harmless(text: str) -> str:
    """Return a text of one or more lines without characters that would do something to a terminal."""
    return CONTROL.sub("\ufffd", text)


def printable(text: str) -> str:
    """Return a text for one line: harmless, and without tabs and ends of lines."""
    return harmless(text).replace("\t", "\ufffd").replace("\n", "\ufffd")


def sentence(text: str) -> str:
    """Return a text that ends as a sentence does."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def si(value: float) -> str:
    """Return a number with three significant digits and an SI prefix: 1234567 is 1.23M, 950 is 950; 5.76e23 stays."""
    if not value or not math.isfinite(value):
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    if int(exponent) >= MAX_EXPONENT:
        return power_of_ten(value)
    thousands = max(int(exponent) // 3, 0)
    shift = int(exponent) - 3 * thousands
    return f"{float(mantissa) * 10**shift:.{max(2 - shift, 0)}f}{' kMGTP'[thousands].strip()}"


_PLURAL = {"is": "are", "was": "were", "has": "have", "does": "do"}


def counted(number: int, noun: str, verb: str = "", of: int | None = None) -> str:
    """Return how many things there are, with the verb that fits: `1 run`, `1,200 runs have`, `1 of 8 runs is`.

    Args:
        noun: in the singular; its plural ends in s.
        verb: in the singular, such as `has` or `that is`; its last word changes.
        of: how many there are in all.
    """
    nouns = noun if number == 1 and of is None else f"{noun}s"
    if verb and number != 1:
        *words, last = verb.split(" ")
        verb = " ".join([*words, _PLURAL.get(last) or last.removesuffix("s")])
    return " ".join(filter(None, [f"{number:,}", "" if of is None else f"of {of:,}", nouns, verb]))


MAX_LISTED = 6
"""Names that a sentence lists; of more, it lists one fewer and says how many others there are."""


def listed(names: Sequence[str]) -> str:
    """Return `a, b and c`; if there are many, the first ones and the number of the others."""
    shown = list(names)
    if len(shown) > MAX_LISTED:
        shown = [*shown[: MAX_LISTED - 1], f"{len(shown) - MAX_LISTED + 1:,} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def bytes_in_words(n_bytes: int) -> str:
    """Return a size, such as `3.2 MB`; a MB is 10^6 bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} bytes"


def short_si(value: float, digits: int = 4) -> str:
    """Return a number of at least 1 with so many significant digits and an SI prefix: 40G, 1.6M, 1.049M, 950, 1e18."""
    if not math.isfinite(value):
        return f"{value:g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    if int(exponent) >= MAX_EXPONENT:
        return power_of_ten(value, digits)
    thousands = max(int(exponent) // 3, 0)
    return f"{float(mantissa) * 10 ** (int(exponent) - 3 * thousands):g}{' kMGTP'[thousands].strip()}"


def power_of_ten(value: float, digits: int = 3) -> str:
    """Return a number as papers write large ones: 1e18, 5.76e23."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def flops_text(value: float, digits: int = 3) -> str:
    """Return FLOPs as the table and the axes of charts have them: 20G, 1.5T, 1e18, 5.76e23."""
    return short_si(value, digits)


def plain_number(value: float) -> str:
    """Return a number as a sentence or a legend has it: 1.234, 32, 100k, 2.5e12, 1e-5."""
    if not math.isfinite(value):
        return "unknown"
    if abs(value) >= 1e9 or 0 < abs(value) < 1e-3:
        return power_of_ten(value)
    return (
        f"{value / 1e6:.3g}M" if abs(value) >= 1e6 else f"{value / 1e3:.3g}k" if abs(value) >= 1e4 else f"{value:.4g}"
    )


def duration(seconds: float) -> str:
    """Return seconds as a person says them: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
