"""What a report says of a study: its findings or, if its sweep belongs to a paper, first the verdicts on the claims.

The analysis does not know papers, so this is where the two meet: in the terminal, the page, the JSON document and
Python.
"""

from dataclasses import dataclass
from functools import lru_cache

from lmexp.analysis.answer import MAX_SENTENCES
from lmexp.analysis.findings import Findings, findings
from lmexp.analysis.table import Study
from lmexp.errors import UserError
from lmexp.papers.judge import Judged
from lmexp.papers.of_study import Claims, claims_of
from lmexp.papers.overview import counts_in_words
from lmexp.papers.verdicts import Verdict
from lmexp.report.terminal.paper import interval_text, ours_text, published_text
from lmexp.units import counted, sentence

IS: dict[Verdict, str] = {
    "contradicted": "is contradicted",
    "undecided": "is undecided",
    "borne out": "is borne out",
    "not judged": "is not judged",
    "not run": "lacks runs",
}
"""How a sentence says each verdict; those that need a reader's attention come first."""


@dataclass(frozen=True)
class Said(Findings):
    """What a report says of a study."""

    claims: tuple[Judged, ...] = ()
    """The claims of its paper, those that need a reader's attention first; empty if it belongs to none."""
    verdicts: tuple[str, ...] = ()
    """The verdicts on them as sentences."""


def said_of(study: Study, quality: str = "loss", cost: str = "train_seconds") -> Said:
    """Return what a report says of a study.

    Of a paper's sweep, the answer is the verdicts on its claims, in at most MAX_SENTENCES sentences; the other claims
    follow, then the findings. Raises UserError for a quality or a cost that is not a numeric column.
    """
    found = findings(study, quality, cost)
    try:
        claims = _claims(study)
    except UserError as problem:
        why = sentence(f"The claims of the paper are not judged: {problem}")
        return Said((why,), (*found.answer, *found.rest), found.basis)
    if claims is None:
        return Said(found.answer, found.rest, found.basis, found.of_parts)
    kinds: list[str] = list(IS)
    judged = sorted(claims.judged, key=lambda one: kinds.index(one.verdict))
    counts = {kind: sum(one.verdict == kind for one in judged) for kind in kinds}
    total = counted(len(judged), "claim")
    summary = f"Of {total} of {claims.paper.authors}, {claims.paper.year}, at scale {claims.scale}: "
    summary += counts_in_words({kind: count for kind, count in counts.items() if count})
    verdicts = tuple(map(_about_claim, judged))
    said = (sentence(summary), *verdicts)
    rest = (*said[MAX_SENTENCES:], *found.answer, *found.rest)
    return Said(said[:MAX_SENTENCES], rest, found.basis, claims=tuple(judged), verdicts=verdicts)


@lru_cache(maxsize=2)  # a claim may take seconds, and a report is printed, drawn and written
def _claims(study: Study) -> Claims | None:
    """Return the verdicts on the claims of the study's paper; None if it belongs to no paper."""
    return claims_of(study)


def _about_claim(one: Judged) -> str:
    """Return a claim, its verdict, our number with its interval, and the published number."""
    claim, interval, published = one.claim, interval_text(one), published_text(one.claim)
    numbers = [f"ours {ours_text(one)}" + (f" (95 % interval {interval})" if interval else "")] * bool(ours_text(one))
    if published:
        numbers.append(f"published {published.removesuffix('*')}{'' if claim.checked else ' (unchecked)'}")
    numbers.append(f"band {claim.band_in_words}")
    return sentence(f"{claim.name} {IS[one.verdict]}: {claim.claim.removesuffix('.')}; {', '.join(numbers)}")
