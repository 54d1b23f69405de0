"""`lmexp eval`: the quality of a finished run or a pretrained model."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import USE, out, print_json, say, verb
from lmexp.cli.options import CommonWithConfigs, Model
from lmexp.errors import UserError


@dataclass(frozen=True)
class ScoringOptions:
    """What is scored, and how."""

    name: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="The NAME in the scores' columns, `score/NAME/<metric>` "
            "[default: the task's name; for other data, with a hash of these].",
        ),
    ] = None
    predicts: Annotated[
        str | None,
        typer.Option(help="What hf:NAME predicts: causal, masked or seq2seq [default: as its config says]."),
    ] = None
    precision: Annotated[
        str | None, typer.Option(help="Convert the weights first: fp32, tf32, bf16, fp16, int8 or int4.")
    ] = None
    examples: Annotated[
        int | None, typer.Option(help="Score only this many samples, from the first on [default: all].")
    ] = None
    split: Annotated[str, typer.Option(help="Split of the data to score: validation or test.")] = "validation"


@dataclass(frozen=True)
class HarnessOptions:
    """Tasks of lm-eval instead of the validation split."""

    harness: Annotated[
        str | None, typer.Option("--lm-eval", help="Run these tasks of lm-eval instead, such as a,b.")
    ] = None
    tasks_dir: Annotated[Path | None, typer.Option(help="For lm-eval: folder with tasks of your own.")] = None
    limit: Annotated[
        int | None, typer.Option(help="For lm-eval: use only this many documents of each task [default: all].")
    ] = None
    trust_task_code: Annotated[bool, typer.Option(help="For lm-eval: let task files run their own Python code.")] = (
        False
    )


@dataclass(frozen=True)
class MembershipOptions:
    """An attack on the run instead of its quality."""

    membership: Annotated[
        bool,
        typer.Option(
            "--membership",
            help="Measure instead whether the model tells its training documents from its validation documents.",
        ),
    ] = False
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="RUN | hf:NAME",
            help="With --membership: also compare with this model, which has not seen the training documents.",
        ),
    ] = None


def _refuse_beside_membership(
    membership: MembershipOptions, scoring: ScoringOptions, harness: HarnessOptions, overrides: list[str]
) -> None:
    """Raise UserError for an option that has no effect beside, or without, --membership."""
    if not membership.membership:
        if membership.reference is not None:
            raise UserError("--reference is for --membership")
        return
    if harness.harness is not None:
        raise UserError("--membership and --lm-eval measure different things: use one of them at a time")
    if overrides:
        raise UserError(
            f"{overrides[0]} has no effect with --membership, which reads the data that the run was trained on"
        )
    if idle := [name for name in ("name", "predicts", "precision") if getattr(scoring, name) is not None]:
        raise UserError(f"--{idle[0].replace('name', 'as')} has no effect with --membership")
    from lmexp.config.schema import MIN_DOCUMENTS

    if scoring.split != "validation":
        raise UserError("--split has no effect with --membership, which compares training and validation documents")
    if scoring.examples is not None and scoring.examples < MIN_DOCUMENTS:
        raise UserError(
            f"--examples {scoring.examples}: with --membership at least {MIN_DOCUMENTS} documents of each split"
        )


def _refuse_idle(scoring: ScoringOptions, harness: HarnessOptions) -> None:
    """Raise UserError for an option that has no effect beside, or without, --lm-eval."""
    for options, is_idle, reason in (
        (scoring, harness.harness is not None, "has no effect with --lm-eval, whose tasks have their own"),
        (harness, harness.harness is None, "is for tasks of lm-eval: name them with --lm-eval"),
    ):
        for field in fields(options) if is_idle else ():
            if getattr(options, field.name) != field.default:
                option = {"name": "as"}.get(field.name, field.name.replace("_", "-"))
                raise UserError(f"--{option} {reason}")


@verb(USE, "lmexp eval train/gpt_nano", "lmexp eval hf:FOLDER data=text data.path=a.txt", name="eval")
def evaluate(
    subject: Model,
    scoring: ScoringOptions,
    harness: HarnessOptions,
    membership: MembershipOptions,
    common: CommonWithConfigs,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="OVERRIDES", help="Other data or another task: data=text data.path=a.txt."),
    ] = None,
) -> None:
    """Measure the quality of a finished run, or of a pretrained model, on its validation split or on other data.

    A run's record keeps the scores. `--split test data.test_path=FILE` scores a whole file. `--membership` asks instead
    whether the model's probabilities tell what it was trained on; `--examples` then says how many documents of each
    split are compared [default: 1000].
    """
    from lmexp.config.overrides import refuse_axes
    from lmexp.config.scoring import Scoring
    from lmexp.inference.evaluate import evaluate, evaluate_by_harness
    from lmexp.report.terminal.scores import print_scores

    overrides = overrides or []
    _refuse_idle(scoring, harness)
    _refuse_beside_membership(membership, scoring, harness, overrides)
    refuse_axes(overrides, "`lmexp train -m`")
    where = common.output_dir, common.config_dir
    if membership.membership:
        from lmexp.inference.membership import evaluate_membership
        from lmexp.report.terminal.scores import print_membership

        attacked = evaluate_membership(subject, *where, membership.reference, scoring.examples, say)
        if common.as_json:
            print_json(attacked)
        else:
            print_membership(attacked, out)
        return
    if harness.harness is not None:
        names = harness.harness.split(",")
        trusted = harness.tasks_dir, harness.limit, harness.trust_task_code
        results = evaluate_by_harness(subject, names, *trusted, overrides, *where, say)
    else:
        results = [evaluate(subject, overrides, *where, Scoring(**asdict(scoring)), say)]
    if common.as_json:
        print_json(results if harness.harness is not None else results[0])
    else:
        for result in results:
            print_scores(result, out)
