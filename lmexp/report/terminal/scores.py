"""Scores of a model, and how plausible it finds sentences, in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from lmexp.report.terminal.layout import small_table


def print_scores(scored: Mapping[str, Any], console: Console) -> None:
    """Print what was scored, the metrics, and the file that keeps them."""
    about = scored["about"]
    if "targets" in about:
        what = (
            f"{about['targets']:,} targets of {about['samples']:,} samples, task {about['task']}, {about['precision']}"
        )
        console.print(Text(f"{scored['subject']}: {what}"), soft_wrap=True)
    rows = [(f"score/{scored['name']}/{metric}", f"{value:.6g}") for metric, value in scored["scores"].items()]
    console.print(small_table(("", "value"), rows))
    console.print(Text(f"kept in {scored['file']}"), soft_wrap=True)


def print_sentences(sentences: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print sentences, one a row; a single sentence also word by word."""
    if len(sentences) == 1:
        words = [
            (word["word"], f"{word['log_probability']:.3f}", f"{word['surprisal_bits']:.2f}")
            for word in sentences[0]["words"]
        ]
        console.print(small_table(("word", "log p", "bits"), words))
        console.print()
    rows = [
        (
            f"{one['plausibility']:.3g}",
            f"{one['log_probability']:.3f}",
            f"{one['perplexity']:,.2f}",
            f"{one['bits_per_byte']:.3f}",
            one["text"],
        )
        for one in sentences
    ]
    console.print(small_table(("plausibility", "log p", "ppl", "bits/byte", "sentence"), rows))
