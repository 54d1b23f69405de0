"""`lmexp train`: one run in the foreground, or an ad-hoc sweep."""

from typing import Annotated

import typer

from lmexp.cli.app import RUN, say, verb
from lmexp.cli.options import CommonWithConfigs, Overrides, PolicyOptions
from lmexp.cli.running import run_and_report


@verb(RUN, "lmexp train model=gpt_nano budget.tokens=200_000")
def train(
    common: CommonWithConfigs,
    policy: PolicyOptions,
    overrides: Overrides = None,
    multirun: Annotated[
        bool, typer.Option("-m", "--multirun", help="Sweep over overrides with several values, such as `seed=1,2`.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Folder of the runs [default: train, or multirun with -m].")] = None,
) -> None:
    """Train one run, or an ad-hoc sweep with -m."""
    from lmexp.config.overrides import refuse_axes
    from lmexp.study.run import resolve_to_run

    overrides = overrides or []
    if not multirun:
        refuse_axes(overrides, "`lmexp train -m`")
    parsed = policy.parse()
    folder = name or ("multirun" if multirun else "train")
    resolved = resolve_to_run(None, overrides, common.output_dir, common.config_dir, folder, say)
    run_and_report(resolved, parsed, common.as_json, is_one_run=not multirun)
