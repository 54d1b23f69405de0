"""`lmexp score`: how likely a model finds the words of a sentence."""

from typing import Annotated

import typer

from lmexp.cli.app import USE, out, print_json, say, verb
from lmexp.cli.options import CommonWithConfigs, Model


@verb(USE, 'lmexp score train/gpt_nano "import os" "import so"')
def score(
    run: Model,
    common: CommonWithConfigs,
    sentences: Annotated[list[str] | None, typer.Argument(metavar="SENTENCE", help="Sentences to score.")] = None,
    file: Annotated[
        str | None, typer.Option(help="Also score the sentences of this file, one per line; `-` reads standard input.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="For an encoder-decoder: the source text that the sentences are targets of.")
    ] = None,
) -> None:
    """Show how likely each word is, and how plausible each sentence is (the geometric mean over its words)."""
    from lmexp.inference.score import read_sentences
    from lmexp.inference.score import score as score_one
    from lmexp.inference.subject import load_subject
    from lmexp.report.terminal.scores import print_sentences

    texts = read_sentences(sentences or [], file)
    loaded = load_subject(run, common.output_dir, common.config_dir, say=say)
    scores = [score_one(loaded, text, source).document() for text in texts]
    if common.as_json:
        print_json({"sentences": scores})
    else:
        print_sentences(scores, out)
