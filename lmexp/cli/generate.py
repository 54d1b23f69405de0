"""`lmexp generate`: continue a text with a trained model."""

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from lmexp.cli.app import USE, out, print_json, say, verb
from lmexp.cli.options import CommonWithConfigs, Model


@dataclass(frozen=True)
class SamplingOptions:
    """How the next tokens are chosen."""

    tokens: Annotated[int, typer.Option(min=1, help="Number of tokens to add, at most.")] = 100
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 always takes the most likely token [default: 0.8].")
    ] = None
    top_k: Annotated[int | None, typer.Option(min=1, help="Sample from the k most likely tokens only.")] = None
    top_p: Annotated[
        float | None,
        typer.Option(help="Sample only from the smallest set of tokens that has this probability together."),
    ] = None
    beams: Annotated[
        int | None, typer.Option(help="Beams of the beam search, for an encoder-decoder [default: 1].")
    ] = None
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the sampling.")] = 0
    stop: Annotated[list[str] | None, typer.Option(help="Also stop before this text; may be given several times.")] = (
        None
    )
    no_stop: Annotated[bool, typer.Option("--no-stop", help="Continue past the end of the document.")] = False


@verb(USE, 'lmexp generate train/gpt_nano "def main(" --tokens 50')
def generate(
    run: Model,
    sampling: SamplingOptions,
    common: CommonWithConfigs,
    prompt: Annotated[str, typer.Argument(help="Text to continue; for an encoder-decoder, the source text.")] = "",
    file: Annotated[
        str | None,
        typer.Option(
            help="Treat each line of this file as a text, and print one JSON object for each; `-` reads standard input."
        ),
    ] = None,
) -> None:
    """Continue a text with a finished run, write the target of a source text, or show the labels of a text."""
    from lmexp.errors import UserError
    from lmexp.inference.generate import predict_lines, write
    from lmexp.inference.score import read_lines
    from lmexp.inference.subject import load_subject

    if file is not None and prompt:
        raise UserError("give either a text or --file, not both")
    lines = [] if file is None else read_lines(file)
    loaded = load_subject(run, common.output_dir, common.config_dir, say=say)
    s = sampling
    if file is not None:
        predictions = predict_lines(loaded, file, lines, **asdict(s))
        if common.as_json:
            print_json(list(predictions))
        else:
            for prediction in predictions:
                out.print_document(prediction, indent=None)
        return
    pieces = write(loaded, prompt, **asdict(s))
    if common.as_json:
        print_json({"prompt": prompt, "text": "".join(pieces)})
        return
    continues = loaded.config.model.reads == "left_to_right" and loaded.config.task.head == "vocabulary"
    if continues:
        out.print_piece(prompt)
    piece = ""
    for piece in pieces:
        out.print_piece(piece)
    out.print_piece("" if piece.endswith("\n") and not continues else "\n")
