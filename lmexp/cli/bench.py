"""`lmexp bench`: what using a model costs."""

from typing import Annotated

import typer

from lmexp.cli.app import USE, out, print_json, say, verb
from lmexp.cli.options import CommonWithConfigs


@verb(USE, "lmexp bench train/gpt_nano --batch 1,4", "lmexp bench model=gpt_tiny")
def bench(
    subject: Annotated[
        list[str],
        typer.Argument(metavar="RUN | OVERRIDES", help="A finished run, or overrides that describe a new model."),
    ],
    common: CommonWithConfigs,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Precisions to measure: fp32, tf32, bf16, fp16, int8, int4 [default: the trained one, int8, int4]."
        ),
    ] = None,
    batch: Annotated[list[str], typer.Option(help="Batch sizes to measure, such as 1,4.")] = ["1", "4"],  # noqa: B006
    prompt: Annotated[list[str], typer.Option(help="Prompt lengths in tokens, such as 16,64.")] = ["16", "64"],  # noqa: B006
    new: Annotated[int, typer.Option(help="Number of tokens to add to each prompt.")] = 32,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the step that reads one token with torch.compile.")
    ] = False,
) -> None:
    """Measure what using a model costs: speed, latency and memory, by batch size, prompt length and precision."""
    from lmexp.inference.bench import bench, find_target, parse_grid
    from lmexp.report.terminal.bench import print_bench

    grid = parse_grid(precision or [], batch, prompt, new, compile_)
    result = bench(find_target(subject, common.output_dir, common.config_dir, say), grid, common.output_dir, say)
    if common.as_json:
        print_json(result)
    else:
        print_bench(result, out)
