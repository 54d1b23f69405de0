"""`lmexp versus`: how much less cost one arm of a study needs for the quality of another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import DECIDE, out, print_json, verb
from lmexp.cli.options import AllRuns, Common, Where


@dataclass(frozen=True)
class ArmOptions:
    """What is compared."""

    arms: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARMS",
            help="The arms: an axis (`optim`), some of its values (`optim=adamw,muon`), or an expression for each arm "
            "(can be repeated) [default: each sweep is an arm].",
        ),
    ] = None
    baseline: Annotated[
        str | None, typer.Option(metavar="ARM", help="Arm to compare the others with [default: the first].")
    ] = None
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Quality that must be equal [default: bits_per_byte if tokenizers differ, otherwise loss].",
        ),
    ] = None
    cost: Annotated[
        str | None,
        typer.Option(
            help="Costs to compare, such as flops,seconds: flops, seconds, dollars, kwh, tokens, or the column of a "
            "cost [default: those five, as far as the runs have them]."
        ),
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(metavar="AXIS", help="Axis by whose values to give speedups [default: every cell by itself]."),
    ] = None
    best: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS", help="Axis, such as optim.lr, of which each arm takes its best value in each cell."
        ),
    ] = None
    where: Where = None
    all_runs: AllRuns = False
    confidence: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Confidence of the intervals [default: 0.95].")
    ] = None


@verb(DECIDE, "lmexp versus demo --arms precision", "lmexp versus old_recipe new_recipe --gate gate.yaml")
def versus(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Sweeps with finished runs; without --arms, each is an arm.")
    ],
    options: ArmOptions,
    common: Common,
    gate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML file with min_speedup and more; exit code 1 unless it is passed."),
    ] = None,
) -> None:
    """Compare what arms cost at equal quality: speedups in FLOPs, seconds, dollars, kWh and tokens, with intervals."""
    from lmexp.analysis.versus.gate import read_gate
    from lmexp.report.options import split_names
    from lmexp.report.terminal.versus import print_versus
    from lmexp.report.values import json_value
    from lmexp.runs.find import sweep_folder
    from lmexp.study.versus import compare

    report = compare(
        [sweep_folder(name, common.output_dir) for name in names],
        arms=options.arms or (),
        baseline=options.baseline,
        quality=options.quality,
        costs=split_names(options.cost),
        scale=options.scale,
        best=options.best,
        where=options.where,
        all_runs=options.all_runs,
        confidence=options.confidence,
        gate=None if gate is None else read_gate(gate),
    )
    if common.as_json:
        judgement = None if report.judgement is None else report.judgement.document
        print_json(json_value(report.result.document | {"sentences": report.sentences, "gate": judgement}))
    else:
        print_versus(report.result, report.sentences, report.judgement, out)
    if not report.passes:
        raise typer.Exit(1)
