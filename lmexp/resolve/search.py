"""From the spec of a search to what it works with: its space checked, and the corners of the space resolved."""

import json
from collections.abc import Sequence
from importlib.util import find_spec

from lmexp.config.cells import corners
from lmexp.config.compose import Composer, Values
from lmexp.config.identity import HASH_LENGTH
from lmexp.config.schema import RunConfig
from lmexp.config.sweeps import Choices, SearchSpec
from lmexp.errors import UserError, nearest
from lmexp.files import hash_text
from lmexp.resolve.planned import PlannedRun, Searched
from lmexp.resolve.run import AUTOMATIC, RunResolver
from lmexp.runs.columns import COLUMNS, FAMILIES, MAX_LOST_DIFFERENCE, PER_TEXT, PER_TOKEN, QUALITIES


def resolve_search(search: SearchSpec, composer: Composer, resolver: RunResolver) -> Searched:
    """Check a search and the corners of its space. Raises UserError if none of the corners can run."""
    _check_search(search)

    def resolve(values: Values) -> PlannedRun:
        return resolver.resolve(values, composer.config(values))

    runs: list[PlannedRun] = []
    problems: list[str] = []
    for values in corners(search):
        config = composer.config(values)  # a bound or a choice that no config can have is a wrong input
        _check_rungs(search, config)
        try:
            runs.append(resolver.resolve(values, config))
        except UserError as problem:
            problems.append(str(problem))
    if not runs:
        raise UserError(f"no corner of the search's space can be run: {problems[0]}")
    _check_comparable(search, runs, resolver)
    content = search.model_dump(mode="json", include={"space", "objectives"})
    return Searched(
        spec=search,
        identity=hash_text(json.dumps([runs[0].identity, content], sort_keys=True), HASH_LENGTH),
        corners=sorted(runs, key=lambda planned: planned.horizon.spent_flops or planned.horizon.seconds or 0.0),
        resolve=resolve,
        say=resolver.say,
    )


def _check_search(search: SearchSpec) -> None:
    for key in AUTOMATIC:
        choices = search.space.get(key)
        if isinstance(choices, Choices) and "auto" in choices.choices:
            section, name = key.split(".")
            raise UserError(
                f"sweep.search.space: {key}=auto may stand for another number in each cell, so a search cannot choose "
                f"it; fix it for all trials with {section}: {{{name}: auto}}, or give numbers"
            )
    if find_spec("optuna") is None:
        raise UserError("a search needs optuna: pip install 'lmexp[optuna]'")
    numbers = [column.name for column in COLUMNS.values() if not column.is_text]
    for name in search.objectives:
        if name not in numbers and not name.startswith(tuple(FAMILIES)):
            raise UserError(f"sweep.search.objectives: {name} is no column of numbers.{nearest(name, numbers)}")
    if search.prune and (len(search.objectives) > 1 or next(iter(search.objectives)) not in QUALITIES):
        raise UserError(
            f"sweep.search.prune compares trials while they train: it needs a single objective, "
            f"one of {', '.join(QUALITIES)}"
        )
    if search.prune and search.prune.by == "predicted" and search.objectives != {"loss": "minimize"}:
        raise UserError("sweep.search.prune.by=predicted compares predicted losses: its objective is {loss: minimize}")


def _check_comparable(search: SearchSpec, runs: Sequence[PlannedRun], resolver: RunResolver) -> None:
    """Raise UserError if trials would be compared that were scored on different texts, or in different units.

    analysis/rankable.py has the same rules for finished rows.
    """
    of_quality = [name for name in search.objectives if name in QUALITIES or name.startswith("score/")]
    stores = [resolver.store(planned.config) for planned in runs]
    if not of_quality:
        return
    if len({planned.config.task.name for planned in runs}) > 1:
        raise UserError("sweep.search.space: trials of different tasks do not compare; search in each task by itself")
    if len({store.validation_fingerprint for store in stores} - {None}) > 1:  # None: of an earlier version
        raise UserError(
            "sweep.search.space: its trials would be scored on different texts, so their qualities would not compare; "
            "search in each text by itself"
        )
    is_text = runs[0].config.task.head != "labels"
    per_token = [name for name in of_quality if name in PER_TOKEN]
    if is_text and per_token and len({store.tokenizer_fingerprint for store in stores}) > 1:
        raise UserError(
            f"sweep.search.objectives: {per_token[0]} does not compare between tokenizers; search for bits_per_byte"
        )
    lost = [store.splits["validation"].text_lost or 0.0 for store in stores]
    per_text = [name for name in of_quality if name in PER_TEXT]
    if per_text and max(lost) - min(lost) > MAX_LOST_DIFFERENCE:
        raise UserError(
            f"sweep.search.objectives: {per_text[0]} does not compare between tokenizers that lose different shares of "
            f"the text, here {min(lost):.1%} to {max(lost):.1%}"
        )


def _check_rungs(search: SearchSpec, config: RunConfig) -> None:
    every = config.evaluation.every
    if search.prune and config.budget.milestones:
        raise UserError(
            "sweep.search.prune compares runs along their curves, and with budget.milestones a run goes back on its "
            "curve after each milestone: set one of them to null"
        )
    if search.prune and every > search.prune.start + 1e-9:
        raise UserError(
            f"sweep.search.prune.from={search.prune.start:g} comes before the first evaluation: set "
            f"evaluation.every={search.prune.start:g} or less, or prune.from={every:g}"
        )
