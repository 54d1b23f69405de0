"""What a run predicted of each example of its validation split: predictions.jsonl, one JSON object in each line.

For the test split the file is predictions-TASK-test.jsonl.

    {"input": ..., "gold": ..., "guess": ..., "scores": ...}

For a text with a label, `scores` are the probabilities of all labels. For a tagged sentence, all four are lists with an
entry for each word, and the scores are the probabilities of the guessed tags. For a pair, the scores are chrf and
exact_match of the written text alone. The lines are in the order of the split. The file is written whole, before the
record.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from lmexp.files import write_atomically
from lmexp.runs.directory import PREDICTIONS, RunDir


def write_predictions(run: RunDir, predictions: Iterator[Mapping[str, Any]], name: str | None = None) -> None:
    """Write the predictions in place of earlier ones; without any, nothing is written.

    Args:
        name: the name of scores that are not the run's own, as in scores.json; the file is predictions-NAME.jsonl.

    Raises OSError.
    """
    first = next(predictions, None)
    if first is None:
        return
    file = PREDICTIONS if name is None else f"predictions-{name}.jsonl"
    lines = (json.dumps(each, ensure_ascii=False) + "\n" for each in chain([first], predictions))
    write_atomically(run.path / file, lines)
