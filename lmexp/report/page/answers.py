"""What a run answered, for its details on the page: the confusion matrix, the types of spans, texts with their guesses.

scores.json and predictions.jsonl in the run directory have all of it; the page has what can be read in a minute.
"""

import json
from contextlib import suppress
from itertools import islice
from typing import Any

from lmexp.files import open_regular
from lmexp.runs.directory import PREDICTIONS, RunDir, read_scores

MAX_LABELS = 20
"""The confusion matrix of a task with more labels is left out: nobody reads its 400 cells."""
MAX_EXAMPLES = 5
"""Examples of each kind that are shown."""
MAX_READ = 1000
"""Lines of predictions.jsonl that are looked through for examples that went wrong."""
MAX_CHARACTERS = 300
"""A longer text is cut."""


def answers(run: RunDir) -> dict[str, Any]:
    """Return what there is to show of a run; keys are missing where a task has no such thing, or a file is damaged."""
    shown: dict[str, Any] = {}
    rows = run.read_record()
    kept = (read_scores(run.path) or {}).get(str(rows[-1].get("task")), {}) if rows else {}
    details = kept.get("details")
    if isinstance(details, dict):
        labels, confusion, spans = details.get("labels"), details.get("confusion"), details.get("spans")
        if isinstance(labels, list) and isinstance(confusion, list) and len(labels) <= MAX_LABELS:
            shown["confusion"] = {"labels": labels, "counts": confusion}
        if isinstance(spans, dict) and spans:
            shown["spans"] = spans
    if examples := _examples(run):
        shown["examples"] = examples
    return shown


def _examples(run: RunDir) -> list[dict[str, str]]:
    """Return the first examples that are wrong, then some that are right."""
    wrong, right = list[dict[str, str]](), list[dict[str, str]]()
    damaged = (OSError, ValueError, KeyError, TypeError, RecursionError)
    with suppress(*damaged), open_regular(run.path / PREDICTIONS) as file:
        for line in islice(file, MAX_READ):
            known = json.loads(line)
            texts = {key: _as_text(known[key]) for key in ("input", "gold", "guess")}
            (right if known["gold"] == known["guess"] else wrong).append(texts)
            if len(wrong) >= MAX_EXAMPLES:
                break
    return [*wrong[:MAX_EXAMPLES], *right[: max(0, MAX_EXAMPLES - len(wrong))]]


def _as_text(value: Any) -> str:
    """Return a text, or a list of words or tags, as one text of bounded length."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"
