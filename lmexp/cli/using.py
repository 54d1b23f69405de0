"""Verbs that use a model: generate, score, eval, bench, and to and from transformers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import OUTPUTS, USE, AsJson, Configs, Debug, Outputs, app, out, print_json, say


@app.command(epilog='Example: `lmexp generate train/gpt_nano "def main(" --tokens 50`', rich_help_panel=USE)
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

    loaded = load_subject(run, output_dir, config_dir, say=say)
    pieces = write(loaded, words, tokens, temperature, top_k, top_p, beams, seed)
    if as_json:
        print_json({"prompt": words, "text": "".join(pieces)})
        return
    if loaded.config.task.name == "causal_lm":
        _write(words)
    text = ""
    for text in pieces:
        _write(text)
    _write("" if text.endswith("\n") and loaded.config.task.name != "causal_lm" else "\n")


@app.command(epilog='Example: `lmexp score train/gpt_nano "import os" "import so"`', rich_help_panel=USE)
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
    from lmexp.report.terminal.tables import print_sentences

    texts = read_sentences(sentences or [], file)
    loaded = load_subject(run, output_dir, config_dir, say=say)
    found = [score_one(loaded, text, source).document() for text in texts]
    if as_json:
        print_json({"sentences": found})
    else:
        print_sentences(found, out)


@app.command(
    "eval",
    epilog="Example: `lmexp eval train/gpt_nano`, or `lmexp eval hf:FOLDER data=text data.path=a.txt`",
    rich_help_panel=USE,
)
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
    from lmexp.config.compose import refuse_axes
    from lmexp.inference.evaluate import evaluate, evaluate_by_harness
    from lmexp.report.terminal.tables import print_scores

    words = overrides or []
    refuse_axes(words, "`lmexp train -m`")
    if harness is not None:
        trusted = (tasks_dir, limit, trust_task_code)
        found = evaluate_by_harness(subject, harness.split(","), *trusted, words, output_dir, config_dir, say)
    else:
        found = [evaluate(subject, words, output_dir, config_dir, name, predicts, precision, examples, say)]
    if as_json:
        print_json(found if harness is not None else found[0])
    else:
        for one in found:
            print_scores(one, out)


@app.command(
    epilog="Example: `lmexp bench train/gpt_nano --batch 1,4`, or `lmexp bench model=gpt_tiny`", rich_help_panel=USE
)
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
    from lmexp.report.terminal.bench import print_bench

    grid = parse_grid(precision or [], batch, prompt, new)
    found = bench(find_subject(words, output_dir, config_dir, say), grid, output_dir, say)
    if as_json:
        print_json(found)
    else:
        print_bench(found, out)


@app.command(epilog="Example: `lmexp export train/gpt_nano my_model`", rich_help_panel=USE)
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
        print_json({"run": run, "folder": str(path)})
    else:
        out.print(f"{path}: for transformers' AutoModel and AutoTokenizer", soft_wrap=True, markup=False)


@app.command(
    "import", epilog="Example: `lmexp import my_model`, then `lmexp eval imported/my_model`", rich_help_panel=USE
)
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
        print_json({"run": run.name, "path": str(run.path)})
    else:
        out.print(str(run.path), soft_wrap=True, markup=False)


def _write(text: str) -> None:
    """Print a piece of a text as it comes."""
    sys.stdout.write(text)
    sys.stdout.flush()
