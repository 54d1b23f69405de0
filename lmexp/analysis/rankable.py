"""Which rows may be ranked together by a quality: rows of one task that were scored on the same text, in the same unit.

This is the one check before every ranking, frontier, effect and fit. Three things are needed besides the same task:

- the same validation text, targets and labels (`validation_fingerprint`), or test text for scores on that;
- for a quality per token, such as the loss of a language model, the same tokenizer, and no other targets cut off by
  data.truncate (`targets_cut`);
- for bits per byte, tokenizers that lose the same share of the text (`text_lost`).

What a row does not say, such as one of an earlier version, is taken from rows with the same tokens, and is otherwise
not held against it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.runs.columns import COLUMNS, ELSEWHERE, MAX_LOST_DIFFERENCE, ON_TEST, PER_TEXT, PER_TOKEN


def rank_groups(table: pd.DataFrame, qualities: str | Sequence[str]) -> npt.NDArray[np.int64]:  # (rows,)
    """Return a number for each row, from 0 in order of appearance; rows of one number may be ranked by `qualities`.

    A cost, such as a time or a number of parameters, compares within a task.
    """
    names = [qualities] if isinstance(qualities, str) else list(qualities)
    keys = [_values(table, "task")]
    if any(_is_quality(name) for name in names):
        rows = _Rows(table)
        for name in names:
            keys += [
                part
                for part in (rows.texts(name), rows.tokens(name), rows.cut(name), rows.lost(name))
                if part is not None
            ]
    return np.asarray(pd.factorize(pd.Series(list(zip(*keys, strict=True)), dtype=object))[0], dtype=np.int64)


def obstacles(table: pd.DataFrame, quality: str) -> list[str]:
    """Return why finished rows of one task cannot be ranked together by a quality, as sentences; none if they can."""
    if table.empty or not _is_quality(quality):
        return []
    rows = _Rows(table)
    sentences = []
    if _differ(rows.tasks, rows.texts(quality)):
        what = "texts" if rows.is_text.all() else "texts or labels"
        sentences.append(f"The runs were scored on different {what}: their qualities do not compare.")
    if _differ(rows.tasks, rows.tokens(quality)):
        sentences.append("The runs cut text into different tokens: losses per token do not compare; bits per byte do.")
    if _differ(rows.tasks, rows.cut(quality)):
        sentences.append(
            "data.truncate cut off different shares of the targets: losses are of different texts and do not compare."
        )
    if _differ(rows.tasks, rows.lost(quality)):
        shares = [share for share in _values(table, "text_lost") if share is not None]
        unit = "bits per byte" if quality.endswith("bits_per_byte") else "perplexities per word"
        sentences.append(
            f"The tokenizers lose different shares of the text ({min(shares):.1%} to {max(shares):.1%}): {unit} "
            "do not compare, since text that is lost need not be predicted."
        )
    return sentences


def _is_quality(name: str) -> bool:
    """Whether a column depends on what was scored: a quality of the record, a score, or a column of the user's own."""
    return name not in COLUMNS or COLUMNS[name].role == "quality"


def _differ(tasks: list[Any], parts: list[Any] | None) -> bool:
    """Whether rows of one task are in several parts."""
    return parts is not None and len(set(zip(tasks, parts, strict=True))) > len(set(tasks))


def _values(table: pd.DataFrame, name: str) -> list[Any]:
    """Return a column as plain values, with None for what is missing."""
    if name not in table:
        return [None] * len(table)
    values = table[name]
    plain: list[Any] = values.astype(object).where(values.notna(), None).tolist()
    return plain


class _Rows:
    """What rows were scored on, in which tokens, and what their tokenizers lost of it."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self.tasks = _values(table, "task")
        self.data, self.tokenizers = _values(table, "data_fingerprint"), _values(table, "tokenizer_fingerprint")
        perplexity = table["perplexity"].notna() if "perplexity" in table else pd.Series(True, index=table.index)
        self.is_text = perplexity.to_numpy(dtype=bool)

    def texts(self, quality: str) -> list[Any] | None:
        """Return what each row was scored on; None for scores on other data than the run's own."""
        if not self._is_own(quality):
            return None
        return self._scored_by("test_fingerprint" if self._is_on_test(quality) else "validation_fingerprint")

    def tokens(self, quality: str) -> list[Any] | None:
        """Return the tokenizer of each row whose quality is a mean over its tokens; None if the quality never is."""
        own = self._is_own(quality)
        metric = quality.rsplit("/", 1)[-1]
        if metric not in PER_TOKEN or not (own or quality.removesuffix(metric) + "loss" in self.table):
            return None
        known = [name if of_text else None for name, of_text in zip(self.tokenizers, self.is_text, strict=True)]
        return self._filled(known, [None] * len(known))

    def cut(self, quality: str) -> list[Any] | None:
        """Return the share of targets that each row does not score; None if the quality counts them all."""
        if quality.rsplit("/", 1)[-1] not in PER_TOKEN or not self._is_own(quality):
            return None
        # No column has the share of a test split, which was cut to the same context.
        return [share or 0.0 for share in _values(self.table, "targets_cut")]

    def lost(self, quality: str) -> list[Any] | None:
        """Return the share of the text that each row's tokenizer lost, rounded; None unless the quality is per text."""
        if quality.rsplit("/", 1)[-1] not in PER_TEXT:
            return None
        shares = _values(self.table, "text_lost")
        of_tokenizer = {name: share for name, share in zip(self.tokenizers, shares, strict=True) if share is not None}
        filled = [
            share if share is not None else of_tokenizer.get(name, 0.0)
            for name, share in zip(self.tokenizers, shares, strict=True)
        ]
        first = 0.0
        alike = {}
        for share in sorted(set(filled)):
            first = first if share - first <= MAX_LOST_DIFFERENCE else share
            alike[share] = first
        return [alike[share] for share in filled]

    def _is_own(self, quality: str) -> bool:
        """Whether a quality is of the run's own validation or test split; `lmexp eval --as` scores others.

        `lmexp eval` adds the precision to the name of the task, as in score/causal_lm-int8/loss, or the hash of other
        data (ELSEWHERE).
        """
        if not quality.startswith("score/"):
            return True
        name = quality.split("/")[1]
        return any(name == task or name.startswith(f"{task}-") for task in self.tasks) and ELSEWHERE not in name

    def _is_on_test(self, quality: str) -> bool:
        """Whether a quality of the run's own data is of its test split, as score/tag-test/span_f1 is."""
        name = quality.split("/")[1] if quality.startswith("score/") else ""
        return any(name == f"{task}{ON_TEST}" or name.startswith(f"{task}{ON_TEST}-") for task in self.tasks)

    def _filled(self, known: list[Any], otherwise: list[Any]) -> list[Any]:
        """Return values with None replaced: by `otherwise`, or else by the task's value if it has only one."""
        of_task = defaultdict(set)
        for task, value in zip(self.tasks, known, strict=True):
            if value is not None:
                of_task[task].add(value)
        filled = []
        for task, value, other in zip(self.tasks, known, otherwise, strict=True):
            only = next(iter(of_task[task])) if len(of_task[task]) == 1 else None
            filled.append(next((each for each in (value, other, only) if each is not None), None))
        return filled

    def _scored_by(self, column: str) -> list[Any]:
        """Return the fingerprint of what each row was scored on, which `column` has, as far as the rows tell."""
        scored = _values(self.table, column)
        by_data = {data: text for data, text in zip(self.data, scored, strict=True) if text is not None}
        scored = [text or by_data.get(data) for text, data in zip(scored, self.data, strict=True)]
        # With one tokenizer, other tokens are another text.
        of_tokenizer = defaultdict(set)
        for tokenizer, data, text in zip(self.tokenizers, self.data, scored, strict=True):
            if text is None:
                of_tokenizer[tokenizer].add(data)
        several = [
            data if len(of_tokenizer[name]) > 1 else None for name, data in zip(self.tokenizers, self.data, strict=True)
        ]
        return self._filled(scored, several)
