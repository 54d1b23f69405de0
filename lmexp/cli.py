"""The verbs: parse, call, print.

Heavy imports stand inside the verbs, so that `lmexp --help`, `report` and `status` start without torch.
Results go to standard output; whatever tells of the way there goes to standard error.
"""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.launch.resolve import Sweep
    from lmexp.runs.record import Row

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="What does a better language model cost? Sweeps over size, depth, precision and more, "
    "with quality and cost of every run side by side.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Words = Annotated[
    list[str] | None, typer.Argument(metavar="[OVERRIDES]...", help="Hydra overrides, as in model=gpt_nano")
]
Outputs = Annotated[
    Path,
    typer.Option("--output-dir", envvar="LMEXP_OUTPUTS", help="Where runs live.", show_default="outputs"),
]
Configs = Annotated[
    Path | None,
    typer.Option("--config-dir", help="A folder with your conf/ and sweeps/; else the current one, if it has them."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of a wrong input.")]
OUTPUTS = Path("outputs")


class Kind(StrEnum):
    """What `lmexp list` can list."""

    models = "models"
    data = "data"
    tokenizers = "tokenizers"
    tasks = "tasks"
    optims = "optims"
    schedules = "schedules"
    budgets = "budgets"
    precisions = "precisions"
    hardware = "hardware"
    loggers = "loggers"
    sweeps = "sweeps"


@app.command(epilog="Example: `lmexp train model=gpt_nano budget.tokens=200_000`")
def train(
    overrides: Words = None,
    multirun: Annotated[
        bool, typer.Option("-m", "--multirun", help="Sweep over overrides with several values, as in a=1,2.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Folder for the runs; `train`, or `multirun` with -m.")] = None,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train one run, or with -m an ad-hoc sweep."""
    words = overrides or []
    if not multirun:
        _refuse_sweeps(words)
    name = name or ("multirun" if multirun else "train")
    _run(None, words, name, output_dir, config_dir, as_json)


@app.command(epilog="Example: `lmexp sweep demo`, or `lmexp sweep demo precision=bf16 budget.tokens=1e6`")
def sweep(
    name: Annotated[str, typer.Argument(help="A sweep's name (`lmexp list sweeps`), or the path of its file.")],
    overrides: Words = None,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a sweep: check every cell, say the plan, run what is not done, report. Run it again to resume."""
    _run(name, overrides or [], None, output_dir, config_dir, as_json)


@app.command(epilog="Example: `lmexp plan isoflop`, or `lmexp plan demo --measure`")
def plan(
    name: Annotated[str, typer.Argument(help="A sweep's name, or the path of its file.")],
    overrides: Words = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="First train a few steps of each distinct shape, to know its speed.")
    ] = False,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what each cell of a sweep will take: parameters, FLOPs, memory; time and money once measured."""
    from lmexp.analysis.planner import totals
    from lmexp.launch.local import warm_up
    from lmexp.launch.resolve import resolve_sweep
    from lmexp.launch.trials import measure as try_shapes
    from lmexp.report.plan import print_plan

    ready = warm_up if measure else (lambda: None)
    resolved = resolve_sweep(name, overrides or [], output_dir, config_dir, say=_say, when_valid=ready)
    if measure:
        try_shapes(resolved.runs, output_dir, _say)
    rows = _plan(resolved, output_dir)
    if as_json:
        skipped = [{"values": cell.values, "reason": cell.reason} for cell in resolved.skipped]
        _print_json({"sweep": resolved.name, "runs": rows, "total": totals(rows), "skipped": skipped})
    else:
        _warn(resolved)
        print_plan(rows, out)


@app.command(epilog="Example: `lmexp status demo`")
def status(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what each run of a sweep is doing."""
    from lmexp.analysis.status import status
    from lmexp.report.tables import print_status

    rows = status(output_dir / name)
    if as_json:
        _print_json({"sweep": name, "runs": rows})
    else:
        print_status(rows, out)


@app.command(epilog="Example: `lmexp report demo --cost train_flops`")
def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Sweeps that have been started.")],
    quality: Annotated[
        str | None,
        typer.Option(
            help="loss, perplexity, bits_per_byte, accuracy; bits_per_byte where tokenizers differ, else loss."
        ),
    ] = None,
    cost: Annotated[
        str, typer.Option(help="train_seconds, train_flops, wall_seconds, tokens, n_params, peak_memory_gb, dollars.")
    ] = "train_seconds",
    sort: Annotated[str | None, typer.Option(help="Column to sort the table by; the quality.")] = None,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare runs: the table and the frontier here; report.html, table.csv and table.parquet on disk."""
    _report([output_dir / name for name in names], quality, cost, sort, as_json)


@app.command(epilog="Example: `lmexp prepare data=text data.path=README.md data.document=line tokenizer=byte`")
def prepare(
    overrides: Words = None,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Tokenise a text once, into the token store that runs read."""
    from lmexp.config import paths
    from lmexp.config.compose import Composer
    from lmexp.data.store import prepare
    from lmexp.runs.directory import STORES

    words = overrides or []
    _refuse_sweeps(words)
    config = Composer(paths.search_roots(config_dir), words=words).config({})
    store = prepare(config.data, config.tokenizer, output_dir / STORES, _say)
    found: dict[str, Any] = {"path": str(store.path), "vocab_size": store.vocab_size}
    for split in ("train", "validation"):
        found[split] = {
            "tokens": store.tokens(split),
            "documents": store.documents(split),
            "bytes": store.bytes(split),
        }
    if as_json:
        _print_json(found)
    else:
        from lmexp.report.tables import print_store

        print_store(found, out)


@app.command(epilog='Example: `lmexp generate train/gpt_nano "def main(" --tokens 50`')
def generate(
    run: Annotated[str, typer.Argument(help="A finished run: its directory, or a part of its name.")],
    words: Annotated[str, typer.Argument(help="The text to continue.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to add.")] = 100,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest tokens only.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Continue a text with a finished run."""
    from lmexp.models.sampling import sample
    from lmexp.runs.find import find_run
    from lmexp.train.checkpoint import load_final

    config, model, tokenizer = load_final(find_run(run, output_dir))
    prompt = [tokenizer.bos_id, *(int(token) for token in tokenizer.encode(words))]
    drawn = sample(model, prompt, tokens, config.model.context, temperature, top_k, seed)
    if as_json:
        _print_json({"prompt": words, "text": tokenizer.decode(list(drawn))})
        return
    _write(words)
    shown, ids = "", []
    for token in drawn:
        ids.append(token)
        text = tokenizer.decode(ids)
        # A character can take several tokens: it is shown once it is whole.
        if not text.endswith("\ufffd"):
            _write(text[len(shown) :])
            shown = text
    _write("\n")


@app.command(epilog="Example: `lmexp bench train/gpt_nano --batch 1,4`, or `lmexp bench model=gpt_tiny`")
def bench(
    words: Annotated[
        list[str],
        typer.Argument(metavar="RUN | OVERRIDES...", help="A finished run, or overrides that describe a new model."),
    ],
    precision: Annotated[
        list[str] | None,
        typer.Option(help="fp32, tf32, bf16, fp16, int8, int4; the trained one, int8 and int4."),
    ] = None,
    batch: Annotated[list[str], typer.Option(help="Sequences at once, as in 1,4.")] = ["1", "4"],  # noqa: B006
    prompt: Annotated[list[str], typer.Option(help="Tokens of a prompt, as in 16,64.")] = ["16", "64"],  # noqa: B006
    new: Annotated[int, typer.Option(help="Tokens to add to each prompt.")] = 32,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure what using a model costs: speed, latency and memory, by batch, prompt and precision."""
    from lmexp.inference.bench import bench, find_subject, parse_grid
    from lmexp.report.bench import print_bench

    grid = parse_grid(precision or [], batch, prompt, new)
    found = bench(find_subject(words, output_dir, config_dir, _say), grid, output_dir, _say)
    if as_json:
        _print_json(found)
    else:
        print_bench(found, out)


@app.command("list", epilog="Example: `lmexp list models`")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List what there is to choose from, each with one line."""
    from lmexp.config import paths
    from lmexp.report.tables import print_list

    roots = paths.search_roots(config_dir)
    group = kind.value.removesuffix("s")
    files = paths.sweep_files(roots) if kind is Kind.sweeps else paths.group_choices(group, roots)
    found = {name: paths.first_comment(file) for name, file in files.items()}
    if as_json:
        _print_json(found)
    else:
        print_list(found, out)


@app.command(epilog="Example: `lmexp doctor`")
def doctor(output_dir: Outputs = OUTPUTS, as_json: AsJson = False, debug: Debug = False) -> None:
    """Say what this machine has, how fast it multiplies, and what cannot be measured here."""
    from lmexp.cost.doctor import examine
    from lmexp.report.doctor import print_doctor

    with err.status("measuring"):
        found = examine(output_dir)
    if as_json:
        _print_json(found)
    else:
        print_doctor(found, out)


def _run(
    name: str | None,
    words: list[str],
    folder: str | None,
    outputs: Path,
    config_dir: Path | None,
    as_json: bool,
) -> None:
    """Resolve, say the plan, run, report; exit with 1 when a run failed."""
    from lmexp.launch.local import warm_up
    from lmexp.launch.progress import Progress
    from lmexp.launch.queue import run_sweep
    from lmexp.launch.resolve import resolve_sweep
    from lmexp.report.plan import plan_sentence

    # The server's import takes seconds, in which texts are tokenised and the other cells resolved.
    resolved = resolve_sweep(name, words, outputs, config_dir, folder, _say, when_valid=warm_up)
    _warn(resolved)
    _say(plan_sentence(resolved.name, _plan(resolved, outputs)))
    try:
        with Progress(err, resolved.runs) as progress:
            states = run_sweep(resolved, progress)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    # A run that was started by itself may lie in another sweep's folder, where it was done before.
    alone = sorted({planned.run.path.parent for planned in resolved.runs})
    _report([resolved.folder] if resolved.has_manifest else alone, None, "train_seconds", None, as_json)
    failures = [
        (planned, state)
        for planned, state in zip(resolved.runs, states, strict=True)
        if state.state in ("failed", "cancelled")
    ]
    for planned, state in failures:
        _say(f"{planned.run.name} {state.state}: {state.reason}; its log: {planned.run.log}")
    if failures:
        raise typer.Exit(1)


def _report(folders: list[Path], quality: str | None, cost: str, sort: str | None, as_json: bool) -> None:
    from lmexp.analysis.table import load_study
    from lmexp.report.document import study_document
    from lmexp.report.files import write_csv, write_parquet
    from lmexp.report.html import write_report
    from lmexp.report.terminal import print_study

    study = load_study(folders)
    quality = quality or study.default_quality
    folder = folders[0] if len(folders) == 1 else folders[0].parent / "+".join(f.name for f in folders)
    page = write_report(study, folder, quality, cost)
    write_csv(study.table, folder / "table.csv")
    write_parquet(study.table, folder / "table.parquet")
    if as_json:
        _print_json(study_document(study, quality, cost) | {"report": str(page)})
    else:
        print_study(study, out, quality, cost, sort)
        out.print(f"\nreport: {page}", soft_wrap=True)


def _plan(resolved: "Sweep", outputs: Path) -> "list[Row]":
    from lmexp.analysis.planner import Cell, plan
    from lmexp.launch.trials import known_trials

    trials = known_trials(resolved.runs, outputs)
    return plan(
        Cell(planned.values, planned.config, planned.horizon, planned.device, trial)
        for planned, trial in zip(resolved.runs, trials, strict=True)
    )


def _refuse_sweeps(words: list[str]) -> None:
    from lmexp.config.compose import parse_overrides

    for override in parse_overrides(words):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} names several runs; `lmexp train -m` sweeps over them")


def _warn(resolved: "Sweep") -> None:
    for warning in resolved.warnings:
        _say(f"warning: {warning}")
    for cell in resolved.skipped:
        values = " ".join(f"{key}={value}" for key, value in cell.values.items())
        _say(f"skipped: {values}: {cell.reason}")


def _say(line: str) -> None:
    """Tell of the way to a result."""
    err.print(line, markup=False, soft_wrap=True)


def _write(text: str) -> None:
    """Print a piece of a text as it comes."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def main() -> None:
    """Run a verb. A wrong input is one line on standard error and exit code 2."""
    try:
        app()
    except UserError as problem:
        if "--debug" in sys.argv:
            raise
        _say(f"error: {problem}")
        sys.exit(2)
    except BrokenPipeError:  # `lmexp list models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:  # a full disk, a file where a folder should be
        if "--debug" in sys.argv:
            raise
        _say(f"error: {problem.strerror or problem}{f': {problem.filename}' if problem.filename else ''}")
        sys.exit(2)


if __name__ == "__main__":
    main()
