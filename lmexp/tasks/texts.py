"""Scores of written texts against references, by the field's own packages.

BLEU (Papineni et al. 2002) and chrF (Popovic 2015) are sacrebleu's, of the whole corpus, from 0 to 100. ROUGE (Lin
2004) is torchmetrics', the mean over texts of the F1 score, from 0 to 1 and without stemming. One reference a text.
A text below four tokens has no 4-gram: BLEU of such texts alone is 0, however right they are.
"""

import re
import sys
import unicodedata
from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF
from torchmetrics.functional.text.rouge import rouge_score

from lmexp.data.scripts import HAN, KANA, SOUTH_EAST_ASIAN

ROUGE = ("rouge1", "rouge2", "rougeL")
LETTERS = f"{HAN}{KANA}{SOUTH_EAST_ASIAN}"
"""Those of scripts without spaces between words."""
MARKS = "".join(chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("M"))
"""Characters that belong to the letter before them: vowel signs of Hindi, accents. None is special in a regex."""
WORD = re.compile(
    f"(?=[^\\W_])(?:[{HAN}{KANA}]|[{SOUTH_EAST_ASIAN}][{MARKS}]*)|[^\\W_{LETTERS}](?:[^\\W_{LETTERS}]|[{MARKS}])*"
)
"""What ROUGE counts: a character with its marks in scripts without spaces, or a run of other letters and digits with
their marks. For English that is ROUGE's own rule, which knows a to z and 0 to 9 alone."""
MAX_OTHER = 0.1
"""A text with more kana, Thai and the like per Chinese character than this is not Chinese."""


def scores(generated: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Score texts against their references: bleu and chrf from 0 to 100, rouge1, rouge2, rougeL and exact_match to 1.

    Raises ValueError when there are none, or not one reference for each text.
    """
    if not references or len(generated) != len(references):
        raise ValueError(f"{len(generated)} texts cannot be scored against {len(references)} references")
    bleu, chrf = _metrics(references)
    rouge = rouge_score(generated, references, rouge_keys=ROUGE, normalizer=_normal, tokenizer=WORD.findall)
    equal = sum(text.strip() == reference.strip() for text, reference in zip(generated, references, strict=True))
    return {
        "bleu": bleu.corpus_score(generated, None).score,
        "chrf": chrf.corpus_score(generated, None).score,
        **{name: float(rouge[f"{name}_fmeasure"]) for name in ROUGE},
        "exact_match": equal / len(references),
    }


def scores_of_one(text: str, reference: str) -> dict[str, float]:
    """Score one text: chrf from 0 to 100, and exact_match, 0 or 1. BLEU is left out: of one text it says little."""
    chrf = CHRF().sentence_score(text, [reference]).score
    return {"chrf": round(chrf, 4), "exact_match": float(text.strip() == reference.strip())}


def details(references: Sequence[str]) -> dict[str, str]:
    """Say how `scores` come about: sacrebleu's signatures, with tokenizer (tok) and version, and ROUGE's rule."""
    bleu, chrf = _metrics(references)
    return {
        "bleu": str(bleu.get_signature()),
        "chrf": str(chrf.get_signature()),
        "rouge": "F1, mean of texts, lower-cased, composed (NFC), no stemming; words: runs of letters with their marks "
        "and digits, single characters of Chinese, Japanese, Thai, Lao, Khmer and Myanmar",
    }


def _normal(text: str) -> str:
    """Return a text in lower case, its letters composed with their marks where Unicode has such letters."""
    return unicodedata.normalize("NFC", text.lower())


def _metrics(references: Sequence[str]) -> tuple[BLEU, CHRF]:
    """Return sacrebleu's metrics; BLEU has the tokenizer that suits the script of most of the references' letters.

    These are sacrebleu's own: `zh` for Chinese, `char` for the other scripts without spaces between words, else `13a`.
    """
    letters = "".join(character for text in references for character in text if character.isalpha())
    chinese, other = (len(re.findall(f"[{script}]", letters)) for script in (HAN, f"{KANA}{SOUTH_EAST_ASIAN}"))
    tokenize = "13a"
    if 2 * (chinese + other) > len(letters):
        tokenize = "char" if other > MAX_OTHER * chinese else "zh"
    return BLEU(tokenize=tokenize, references=[references]), CHRF(references=[references])
