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
    from lmexp.launch.policy import Policy
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
OnFailure = Annotated[
    str, typer.Option(help="continue; stop starts no further run; retry:N starts a run that raised again, N times.")
]
Timeout = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Stop a run that takes longer, as in 90s, 15m, 2h.")
]
MaxHours = Annotated[
    float | None, typer.Option(min=0, help="Start no run that would bring all runs together to more hours.")
]
MaxDollars = Annotated[float | None, typer.Option(min=0, help="The same, in dollars.")]
MaxFlops = Annotated[float | None, typer.Option(min=0, help="The same, in training FLOPs.")]
Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background, also when the terminal closes.")]
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
    on_failure: OnFailure = "continue",
    timeout: Timeout = None,
    max_hours: MaxHours = None,
    max_dollars: MaxDollars = None,
    max_flops: MaxFlops = None,
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
    policy = _policy(on_failure, timeout, max_hours, max_dollars, max_flops)
    _run(None, words, name, output_dir, config_dir, policy, as_json)


@app.command(epilog="Example: `lmexp sweep demo`, or `lmexp sweep demo precision=bf16 budget.tokens=1e6`")
def sweep(
    name: Annotated[str, typer.Argument(help="A sweep's name (`lmexp list sweeps`), or the path of its file.")],
    overrides: Words = None,
    on_failure: OnFailure = "continue",
    timeout: Timeout = None,
    max_hours: MaxHours = None,
    max_dollars: MaxDollars = None,
    max_flops: MaxFlops = None,
    detach: Detach = False,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a sweep: check every cell, say the plan, run what is not done, report. Run it again to resume."""
    policy = _policy(on_failure, timeout, max_hours, max_dollars, max_flops)
    if detach:
        from lmexp.launch.resolve import resolve_sweep

        resolved = resolve_sweep(name, overrides or [], output_dir, config_dir, say=_say)  # what is wrong is said here
        _detach(resolved.name, resolved.folder, as_json)
    else:
        _run(name, overrides or [], None, output_dir, config_dir, policy, as_json)


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
    from lmexp.analysis.planner import search_totals, totals
    from lmexp.launch.processes import warm_up
    from lmexp.launch.resolve import resolve_sweep
    from lmexp.launch.trials import measure as try_shapes
    from lmexp.report.plan import print_plan, print_search_plan

    ready = warm_up if measure else (lambda: None)
    resolved = resolve_sweep(name, overrides or [], output_dir, config_dir, say=_say, when_valid=ready)
    if measure:
        try_shapes(resolved.examples, output_dir, _say)
    rows = _plan(resolved, output_dir)
    if resolved.search:
        search = resolved.search.spec
        if as_json:
            spec = search.model_dump(mode="json", by_alias=True, exclude_none=True)
            most = search_totals(rows, search)
            _print_json({"sweep": resolved.name, "search": spec, "corners": rows, "at_most": most})
        else:
            _warn(resolved)
            print_search_plan(resolved.name, search, rows, out)
    elif as_json:
        skipped = [{"values": cell.values, "reason": cell.reason} for cell in resolved.skipped]
        _print_json({"sweep": resolved.name, "runs": rows, "total": totals(rows), "skipped": skipped})
    else:
        _warn(resolved)
        print_plan(rows, out)


@app.command(epilog="Example: `lmexp status demo --watch`")
def status(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it, until nothing runs any more.")] = False,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what each run of a sweep is doing."""
    from lmexp.analysis.status import status
    from lmexp.report.tables import print_status, watch_status
    from lmexp.runs.coordinators import has_coordinator

    if watch and as_json:
        raise UserError("--watch shows a table; --json prints one document")
    if watch:
        try:
            watch_status(lambda: status(output_dir / name), lambda: has_coordinator(output_dir / name), out)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        return
    rows = status(output_dir / name)
    if as_json:
        _print_json({"sweep": name, "runs": rows})
    else:
        print_status(rows, lambda: has_coordinator(output_dir / name), out)


@app.command(epilog="Example: `lmexp logs demo -f`, or `lmexp logs train/gpt_nano`")
def logs(
    run: Annotated[str, typer.Argument(help="A run: its directory, or a part of its name; or a sweep's name.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many lines to begin with.")] = 100,
    output_dir: Outputs = OUTPUTS,
    debug: Debug = False,
) -> None:
    """Print what a run printed, or what a detached sweep did."""
    from lmexp.launch.control import LOG
    from lmexp.runs.coordinators import has_coordinator
    from lmexp.runs.find import find_run
    from lmexp.runs.log import further_lines, last_lines
    from lmexp.units import printable

    folder = output_dir / run
    if (folder / LOG).is_file():
        file, ended = folder / LOG, lambda: not has_coordinator(folder)
    else:
        found = find_run(run, output_dir)
        file, ended = found.log, lambda: not found.is_under_way()
    seen, end = last_lines(file, lines)
    for line in seen:
        print(printable(line), flush=True)
    if follow:
        try:
            for line in further_lines(file, end, ended):
                print(printable(line), flush=True)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@app.command(epilog="Example: `lmexp cancel demo`")
def cancel(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Stop a sweep and all its runs, wherever they were started; each is saved first, and goes on when run again."""
    from lmexp.launch.control import cancel

    cancelled = cancel(output_dir / name, _say)
    if as_json:
        _print_json({"sweep": name, "cancelled": [run.name for run in cancelled]})
    else:
        out.print(f"{len(cancelled)} runs cancelled; the same sweep command goes on from here", soft_wrap=True)


@app.command(epilog="Example: `lmexp retry demo`, or `lmexp retry demo demo/gpt_nano --fresh`")
def retry(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Which runs; else all without success.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only runs that are failed, cancelled, oom, diverged or timeout.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, not from the last checkpoint.")] = False,
    on_failure: OnFailure = "continue",
    timeout: Timeout = None,
    max_hours: MaxHours = None,
    max_dollars: MaxDollars = None,
    max_flops: MaxFlops = None,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run those of a sweep again that did not succeed, as their directories describe them."""
    from lmexp.launch.control import RETRIED, set_back
    from lmexp.launch.processes import warm_up
    from lmexp.launch.resolve import resolve_runs

    for word in state or []:
        if word not in RETRIED:
            raise UserError(f"--state {word}: {', '.join(RETRIED)}")
    policy = _policy(on_failure, timeout, max_hours, max_dollars, max_flops)
    chosen = set_back(output_dir / name, output_dir, runs or [], state or RETRIED, fresh)
    if not chosen:
        _say("nothing to retry: no run has ended without success")
        if as_json:
            _report([output_dir / name], None, "train_seconds", None, as_json)
        return
    warm_up()
    _run_resolved(resolve_runs(output_dir / name, chosen, _say), [output_dir / name], policy, as_json)


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
    from lmexp.data.prepare import prepare
    from lmexp.runs.directory import STORES

    words = overrides or []
    _refuse_sweeps(words)
    config = Composer(paths.search_roots(config_dir), words=words).config({})
    store = prepare(config, output_dir / STORES, _say)
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
    run: Annotated[str, typer.Argument(metavar="RUN | hf:NAME", help="A finished run, or a pretrained model.")],
    words: Annotated[str, typer.Argument(help="The text to continue; of an encoder-decoder, the source.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="How many tokens to add, at most.")] = 100,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 always takes the likeliest token; 0.8 unless it is given.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest tokens only.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the fewest tokens only that together have this probability.")
    ] = None,
    beams: Annotated[
        int | None, typer.Option(help="Of an encoder-decoder: targets that are searched side by side; 1.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Continue a text with a finished run, write the target of a source, or show a text's labels."""
    from lmexp.inference.generate import write
    from lmexp.inference.subject import load_subject

    loaded = load_subject(run, output_dir, config_dir, say=_say)
    pieces = write(loaded, words, tokens, temperature, top_k, top_p, beams, seed)
    if as_json:
        _print_json({"prompt": words, "text": "".join(pieces)})
        return
    if loaded.config.task.name == "causal_lm":
        _write(words)
    text = ""
    for text in pieces:
        _write(text)
    _write("" if text.endswith("\n") and loaded.config.task.name != "causal_lm" else "\n")


@app.command(epilog='Example: `lmexp score train/gpt_nano "import os" "import so"`')
def score(
    run: Annotated[str, typer.Argument(metavar="RUN | hf:NAME", help="A finished run, or a pretrained model.")],
    sentences: Annotated[list[str] | None, typer.Argument(metavar="[SENTENCE]...", help="What to score.")] = None,
    file: Annotated[str | None, typer.Option(help="Sentences too, one a line; `-` reads them from the input.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Of an encoder-decoder: the source that the sentences are targets of.")
    ] = None,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say how likely each word of a sentence is, and how plausible the sentence: the geometric mean of its words."""
    from lmexp.inference.score import read_sentences
    from lmexp.inference.score import score as score_one
    from lmexp.inference.subject import load_subject
    from lmexp.report.tables import print_sentences

    texts = read_sentences(sentences or [], file)
    loaded = load_subject(run, output_dir, config_dir, say=_say)
    found = [score_one(loaded, text, source).document() for text in texts]
    if as_json:
        _print_json({"sentences": found})
    else:
        print_sentences(found, out)


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


@app.command("eval", epilog="Example: `lmexp eval train/gpt_nano`, or `lmexp eval hf:FOLDER data=text data.path=a.txt`")
def eval_(
    subject: Annotated[
        str, typer.Argument(metavar="RUN | hf:NAME", help="A finished run, or a pretrained model: a folder or a name.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OVERRIDES]...", help="Other data, another task: as in data=text data.path=a.txt."),
    ] = None,
    name: Annotated[str | None, typer.Option("--as", help="Scores are score/NAME/<metric>; the task's name.")] = None,
    predicts: Annotated[
        str | None, typer.Option(help="Of hf:NAME: causal, masked, seq2seq; as its config says.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Convert the weights before: fp32, tf32, bf16, fp16, int8, int4.")
    ] = None,
    examples: Annotated[int | None, typer.Option(help="Only so many samples, from the first on.")] = None,
    harness: Annotated[str | None, typer.Option("--lm-eval", help="Tasks of lm-eval instead, as in a,b.")] = None,
    tasks_dir: Annotated[Path | None, typer.Option(help="A folder with lm-eval tasks of your own.")] = None,
    limit: Annotated[int | None, typer.Option(help="lm-eval: only so many documents of each task.")] = None,
    trust_task_code: Annotated[bool, typer.Option(help="lm-eval: let task files run their own Python.")] = False,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score a finished run, or a pretrained model, on its validation split or on other data; a run's record keeps it.

    What is scored is the validation split of the data; `data.validation_path=FILE` makes a whole file of examples one.
    """
    from lmexp.inference.evaluate import evaluate, evaluate_by_harness
    from lmexp.report.tables import print_scores

    words = overrides or []
    _refuse_sweeps(words)
    if harness is not None:
        trusted = (tasks_dir, limit, trust_task_code)
        found = evaluate_by_harness(subject, harness.split(","), *trusted, words, output_dir, config_dir, _say)
    else:
        found = [evaluate(subject, words, output_dir, config_dir, name, predicts, precision, examples, _say)]
    if as_json:
        _print_json(found if harness is not None else found[0])
    else:
        for one in found:
            print_scores(one, out)


@app.command(epilog="Example: `lmexp export train/gpt_nano my_model`")
def export(
    run: Annotated[str, typer.Argument(help="A finished run: its directory, or a part of its name.")],
    folder: Annotated[Path, typer.Argument(help="A folder to make.")],
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a finished run as a folder that transformers loads: weights, config and tokenizer."""
    from lmexp.inference.exchange import export_run

    path = export_run(run, folder, output_dir)
    if as_json:
        _print_json({"run": run, "folder": str(path)})
    else:
        out.print(f"{path}: for transformers' AutoModel and AutoTokenizer", soft_wrap=True, markup=False)


@app.command("import", epilog="Example: `lmexp import my_model`, then `lmexp eval imported/my_model`")
def import_(
    folder: Annotated[Path, typer.Argument(help="A folder of transformers, with safetensors: gpt2, llama, bert, ...")],
    name: Annotated[str | None, typer.Option("--as", help="What to call the model; the folder's name.")] = None,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a finished run out of a folder of transformers: to eval, to bench, or to begin with (init.run)."""
    from lmexp.inference.evaluate import check_name
    from lmexp.inference.exchange import import_run

    check_name(name)
    run = import_run(folder, output_dir, name)
    if as_json:
        _print_json({"run": run.name, "path": str(run.path)})
    else:
        out.print(str(run.path), soft_wrap=True, markup=False)


@app.command(epilog="Example: `lmexp sync demo --logger wandb`")
def sync(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    logger: Annotated[str | None, typer.Option(help="wandb, tensorboard, mlflow; each run's own.")] = None,
    mode: Annotated[str | None, typer.Option(help="W&B: offline, online.")] = None,
    project: Annotated[str | None, typer.Option(help="W&B's project, or MLflow's experiment.")] = None,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Rebuild clean mirrors (W&B, TensorBoard, MLflow) from the runs' own files."""
    from lmexp.runs.sync import sync

    changes = {key: value for key, value in (("name", logger), ("mode", mode), ("project", project)) if value}
    rows = sync(output_dir / name, changes, _say)
    if as_json:
        _print_json({"sweep": name, "runs": rows})
    results = {row["result"] for row in rows}
    if "stopped" in results and not results & {"mirrored", "offline"}:
        raise typer.Exit(1)


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
    policy: "Policy",
    as_json: bool,
) -> None:
    """Resolve, say the plan, run, report; exit with 1 when a run failed."""
    from lmexp.launch.processes import warm_up
    from lmexp.launch.resolve import resolve_sweep
    from lmexp.runs.directory import RESULTS
    from lmexp.runs.sync import attach_to_agent, check_agent

    # The server's import takes seconds, in which texts are tokenised and the other cells resolved.
    resolved = resolve_sweep(name, words, outputs, config_dir, folder, _say, when_valid=warm_up)
    _warn(resolved)
    check_agent([planned.config for planned in resolved.examples], is_search=resolved.search is not None)
    before = [planned for planned in resolved.runs if planned.run.read_state().state in RESULTS]
    # A run that was started by itself may lie in another sweep's folder, where it was done before.
    alone = sorted({planned.run.path.parent for planned in resolved.runs})
    _run_resolved(resolved, [resolved.folder] if resolved.has_manifest else alone, policy, as_json)
    for planned in before:
        attach_to_agent(planned.run, planned.config, _say)


def _run_resolved(resolved: "Sweep", folders: list[Path], policy: "Policy", as_json: bool) -> None:
    """Run, report on the folders, and name what failed."""
    from lmexp.launch.progress import Progress
    from lmexp.launch.queue import run_sweep
    from lmexp.report.plan import plan_sentence, search_sentence

    rows = _plan(resolved, resolved.folder.parent)
    search = resolved.search
    _say(search_sentence(resolved.name, search.spec, rows) if search else plan_sentence(resolved.name, rows))
    try:
        with Progress(err, resolved) as progress:
            states = run_sweep(resolved, progress, policy)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    _report(folders, None, "train_seconds", None, as_json)
    failures = [
        (planned, state)
        for planned, state in zip(resolved.runs, states, strict=True)
        if state.state in ("failed", "cancelled") and not state.is_pruned
    ]
    for planned, state in failures:
        _say(f"{planned.run.name} {state.state}: {state.reason}; its log: {planned.run.log}")
    if failures:
        raise typer.Exit(1)


def _policy(
    on_failure: str, timeout: str | None, hours: float | None, dollars: float | None, flops: float | None
) -> "Policy":
    from lmexp.launch.policy import Policy, parse_duration, parse_on_failure

    stop, retries = parse_on_failure(on_failure)
    seconds = None if timeout is None else parse_duration(timeout)
    return Policy(stop, retries, seconds, hours, dollars, flops)


def _detach(name: str, folder: Path, as_json: bool) -> None:
    """Start this very command once more, in the background."""
    from lmexp.launch.control import LOG, detach

    pid, code = detach(folder, [word for word in sys.argv[1:] if word not in ("--detach", "--json")])
    if as_json:
        _print_json({"sweep": name, "pid": pid, "exit_code": code, "log": str(folder / LOG)})
    elif code is None:
        out.print(f"{name} goes on in the background as process {pid}: `lmexp status {name} --watch`, "
                  f"`lmexp logs {name} -f`, `lmexp cancel {name}`", soft_wrap=True)  # fmt: skip
    else:
        out.print(f"{name} has ended already, with exit code {code}: `lmexp logs {name}`", soft_wrap=True)
    raise typer.Exit(code or 0)


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

    trials = known_trials(resolved.examples, outputs)
    return plan(
        Cell(planned.values, planned.config, planned.horizon, planned.device, trial)
        for planned, trial in zip(resolved.examples, trials, strict=True)
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
