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


def print_membership(scored: Mapping[str, Any], console: Console) -> None:
    """Print how well attacks tell training from validation documents, what that means, and the file that keeps it."""
    details, scores = scored["details"], scored["scores"]
    count, tokens = details["texts_of_each_kind"], details["tokens"]
    what = f"{count:,} training and {count:,} validation documents, cut to {tokens} tokens each"
    console.print(Text(f"{scored['subject']}: {what}"), soft_wrap=True)
    attacks = [name.removeprefix("auc_") for name in scores if name.startswith("auc_")]
    rows = [
        (attack, *(_with_interval(f"{measure}_{attack}", scores, details["intervals"]) for measure in ("auc", "tpr")))
        for attack in attacks
    ]
    console.print(small_table(("attack", "AUC", "true positives at 1 % false"), rows))
    console.print(Text(_meaning(scores, details["intervals"], attacks)), soft_wrap=True)
    if scored["about"]["split_by"] != "hash":
        console.print(
            Text(
                "The splits were not made by hash, so their documents may differ in other ways than by training: "
                "then an AUC away from 0.5 says nothing about the model."
            ),
            soft_wrap=True,
        )
    console.print(Text(f"kept in {scored['file']}"), soft_wrap=True)


def _with_interval(name: str, scores: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> str:
    low, high = intervals[name]
    return f"{scores[name]:.3f}  [{low:.3f}, {high:.3f}]"


def _meaning(scores: Mapping[str, float], intervals: Mapping[str, Sequence[float]], attacks: Sequence[str]) -> str:
    """Return in words what the attacks found."""
    best = max(attacks, key=lambda attack: scores[f"auc_{attack}"])
    guess = "An AUC of 0.5 and 0.01 true positives are a guess; that is expected after about one epoch."
    if intervals[f"auc_{best}"][0] <= 0.5:
        return f"{guess} By their 95 % intervals, no attack does better here, which does not prove that none could."
    return (
        f"{guess} By its 95 % interval, the attack {best} does better: the model tells some of what it was trained on."
    )


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
