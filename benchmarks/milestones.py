"""What milestones save in an isoFLOP study, and whether its exponents are those of separate runs.

Trains one study twice on the standard library's text, at six budgets of FLOPs and with byte models of seven widths:

1. with milestones: one run for each width, whose cool-downs give the rows of the smaller budgets;
2. with separate runs: one for each width and budget, each budget with a seed of its own.

It prints the FLOPs and the seconds of both, and the exponent a of N* ~ C^a by approach 2 and by Chinchilla's law with
their 95 % intervals. It ends with 1 if the FLOPs are more than 0.45 of those of separate runs, or if an
exponent of one study lies outside the interval of the other.

python benchmarks/milestones.py [FOLDER]

In FOLDER [default: one that is deleted afterwards] the runs stay, and those that are done are not trained again.
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import lmexp
from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.table import load_study

FLOPS = 3e11
"""The largest budget."""
SHARES = (0.12, 0.19, 0.29, 0.44, 0.66, 1.0)
"""The budgets, as shares of the largest."""
WIDTHS = (8, 12, 16, 20, 24, 28, 32)
"""Wider models need a lower learning rate than this study has: at 40, losses of two seeds differ by up to 0.2 nats."""
WARMUP = 0.02
"""Share of the largest budget; separate runs warm up over as many steps."""
MAX_SHARE = 0.45
"""Goal: the FLOPs with milestones as a share of those of separate runs."""
COMMON = f"""
defaults: [override /model: gpt_nano, override /tokenizer: byte, override /schedule: wsd]
model: {{context: 64}}
batch: {{tokens: 2048}}
optim: {{lr: 5e-3}}
schedule: {{warmup: {WARMUP}, cooldown: 0.1}}
evaluation: {{every: 1}}
checkpoint: {{every: 1}}
trainer: {{log_every: 50}}
launcher: {{slots: 1, threads: 1}}
"""


class Result(NamedTuple):
    """What a study took, and its results."""

    flops: float
    seconds: float
    """Seconds of all processes, with their starts and the evaluations."""
    exponents: dict[str, Estimate]
    """By approach or law; those that the design does not allow are left out."""


def study(folder: Path, name: str, sweep: str) -> Result:
    """Train a study, fit it, and print what it took and what it says."""
    file = folder / f"{name}.yaml"
    file.write_text(COMMON + sweep)
    lmexp.sweep(str(file), output_dir=folder)
    runs = load_study([folder / name])
    fitted = answer(points_of_study(runs))
    exponents = {name: each.exponent for name, each in fitted.approaches.items() if name == "approach_2"}
    if law := fitted.fit.laws.get("chinchilla"):
        exponents["chinchilla"] = law.exponents(fitted.price)["a"]
    spent, alone, seconds = (runs.table[column] for column in ("spent_flops", "train_flops", "wall_seconds"))
    # A row's seconds are those that it would have taken alone.
    result = Result(float(spent.sum()), float((seconds * spent / alone).sum()), exponents)
    said = [f"{of} {each.value:.3f} ({each.low:.3f} to {each.high:.3f})" for of, each in exponents.items()]
    print(f"{name}: {len(runs.table)} rows of {len(runs.runs)} runs, {result.flops:.4g} FLOPs, {result.seconds:.0f} s; "
          f"exponent a by {', '.join(said) or 'none: ' + str(fitted.refused)}", flush=True)  # fmt: skip
    return result


def compare(folder: Path) -> int:
    """Train both studies in a folder and return the exit code."""
    lmexp.run(["model=gpt_nano", "tokenizer=byte", "budget.tokens=4096"], output_dir=folder)  # the text is tokenised
    shared = study(folder, "milestones", f"""
sweep: {{grid: {{model.d_model: {list(WIDTHS)}}}}}
budget: {{flops: {FLOPS:g}, milestones: {list(SHARES)}}}
""")  # fmt: skip
    separate = study(folder, "separate", f"""
sweep:
  grid: {{model.d_model: {list(WIDTHS)}}}
  zip:
    budget.flops: [{", ".join(f"{share * FLOPS:.6g}" for share in SHARES)}]
    schedule.warmup: [{", ".join(f"{WARMUP / share:.6g}" for share in SHARES)}]
    seed: {list(range(len(SHARES)))}
""")  # fmt: skip
    share = shared.flops / separate.flops
    print(f"milestones take {share:.3f} of the FLOPs and {shared.seconds / separate.seconds:.2f} of the seconds")
    both = shared.exponents.keys() & separate.exponents.keys()
    apart = [name for name in both if not _agree(shared.exponents[name], separate.exponents[name])]
    for name in apart:
        print(f"by {name}, the exponent of one study lies outside the interval of the other")
    return int(share > MAX_SHARE or bool(apart) or not both)


def _agree(one: Estimate, other: Estimate) -> bool:
    """Whether each of two estimates lies in the interval of the other."""
    return bool(other.low <= one.value <= other.high and one.low <= other.value <= one.high)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(compare(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as place:
        sys.exit(compare(Path(place)))
