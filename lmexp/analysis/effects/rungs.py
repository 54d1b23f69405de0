"""Whether a search stopped trials for differences that seeds alone may make.

A rung compares single runs, each with one seed. Their differences are compared with the noise floor, which is that at
the end of a run. Earlier in a run, the noise may be larger, so the count is rather too low than too high.
"""

from lmexp.analysis.effects.noise import Noise, margin_of_two
from lmexp.analysis.phrases import size_text
from lmexp.analysis.table import Study
from lmexp.runs.columns import column
from lmexp.runs.pruned import Pruned, read_pruned
from lmexp.units import counted


def pruned_trials(study: Study, quality: str) -> list[Pruned]:
    """Return the trials of a study that a search stopped early, as compared by this quality."""
    runs = study.table.drop_duplicates("run_id")
    reasons = runs["reason"][(runs["state"] == "cancelled").fillna(False)].dropna()
    pruned = [read for reason in reasons if (read := read_pruned(str(reason)))]
    return [trial for trial in pruned if trial.objective == quality]


def about_rungs(study: Study, quality: str, noise: Noise | None) -> list[str]:
    """Say how many trials were stopped early for a difference that two runs of one setting may have."""
    pruned = pruned_trials(study, quality)
    if not pruned:
        return []
    trials = counted(len(pruned), "trial", "was")
    title, least = column(quality).title, size_text(quality, min(trial.behind for trial in pruned))
    if noise is None:
        return [
            f"{trials} stopped early by comparing single runs, the closest for a {title} {least} behind; it is unknown "
            "whether that is noise."
        ]
    margin = margin_of_two(noise)
    close = sum(trial.behind <= margin for trial in pruned)
    said = f"{size_text(quality, margin)}, by which two runs of one setting differ (95 %)"
    if not close:
        return [f"{trials} stopped early, each for a {title} that was behind by more than {said}."]
    which = "it was" if len(pruned) == 1 else f"{close} of them {'was' if close == 1 else 'were'}"
    return [f"{trials} stopped early; {which} behind by no more than {said}, so that may have been chance."]
