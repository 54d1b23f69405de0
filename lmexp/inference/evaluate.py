"""The quality of a finished run or a pretrained model, on its own data, or on other data or tasks.

The model and its tokenizer stay the same; only the text that is scored changes. The scores of a run join its record
(runs/scores.py).
"""

import copy
import math
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError
from torch import nn

from lmexp.config import paths
from lmexp.config.base import fault_of
from lmexp.config.checks import check_task, micro_batch
from lmexp.config.code import load_target
from lmexp.config.compose import Composer, allow_code
from lmexp.config.data import DataConfig, Split
from lmexp.config.overrides import parse_overrides
from lmexp.config.schema import RunConfig
from lmexp.config.scoring import INTEGERS, Scoring
from lmexp.config.tasks import TaskConfig
from lmexp.config.tasks.base import LabelTaskSection, TaskSection
from lmexp.config.tokenizers import SavedTokenizerConfig, TokenizerConfig
from lmexp.data.feeds import Feed
from lmexp.data.loading import ValidationBatches
from lmexp.data.open_feed import open_feed
from lmexp.data.prepare import AnyStore
from lmexp.data.tokenizers.build import load_tokenizer
from lmexp.errors import UserError
from lmexp.files import absolute_text, write_json
from lmexp.inference.quantise import convert
from lmexp.inference.subject import PREFIX, device_for, load_subject
from lmexp.messages import Say
from lmexp.resolve.inputs import InputResolver
from lmexp.runs.columns import ELSEWHERE, ON_TEST
from lmexp.runs.directory import SCORES, STORES, RunDir, read_scores
from lmexp.runs.find import find_run
from lmexp.runs.links import check_links
from lmexp.runs.predictions import write_predictions
from lmexp.runs.scores import add_scores, check_scores
from lmexp.tasks.base import Task
from lmexp.train.checkpoint import TARGET_TOKENIZER, TOKENIZER
from lmexp.train.products import products

SECTIONS = ("data", "task")
"""The sections of the config that can differ from training."""
REQUEST = "request"
"""In `about` of kept scores: what was asked for."""
BATCH = 16
"""Sequences in a batch for a pretrained model, whose config has no micro-batch."""


def evaluate(
    subject: str,
    words: list[str],
    outputs: Path,
    config_dir: Path | None = None,
    scoring: Scoring | None = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Score a subject on a split of its own data, or of the data in `words`, and keep the scores.

    Args:
        subject: see load_subject.
        words: overrides of `data` and `task`; for a pretrained model, of `model` too.
        scoring: what is scored, and how.

    Returns `subject`, `name`, `scores`, `details` (the task's own), `about` (what was scored, and how) and `file`.
    Raises UserError.
    """
    scoring = scoring or Scoring()
    scoring.check()
    precision, examples = scoring.precision, scoring.examples
    is_pretrained = subject.startswith(PREFIX)
    of_model = tuple(word for word in words if is_pretrained and _key(word).split(".")[0] == "model")
    loaded = load_subject(subject, outputs, config_dir, scoring.predicts, of_model, say)
    run = None if is_pretrained else find_run(subject, outputs, is_finished=True)
    if run is not None:
        check_scores(run)
    config = _asked(subject, loaded.config, [word for word in words if word not in of_model], config_dir, run)
    # These are for training alone: other data may have too few examples for a step, or lack the labels of the weights.
    config = config.model_copy(update={"batch": config.batch.model_copy(update={"by_length": False})})
    if isinstance(config.task, LabelTaskSection):
        config = config.model_copy(update={"task": config.task.model_copy(update={"class_weights": None})})
    resolver = InputResolver(outputs / STORES, say)
    config = _same_model(resolver.settled(resolver.identified(config)), loaded.config)
    store = resolver.store(config)
    feed = copy.copy(open_feed(config, store, scoring.split))
    if feed.cut:
        say(f"data.truncate cuts {feed.cut:,} texts to the context of {config.model.name}")
    if examples is not None and examples < feed.validation_samples:
        feed.validation_samples, feed.text_bytes, feed.text_words = examples, None, None
    else:
        examples = None
    task, batch = build_task(loaded.model, config, precision), micro_batch(config) if run else BATCH
    with products(_multiplied_in(config, precision)):
        quality = task.evaluate(ValidationBatches(feed, batch), feed.text_bytes, feed.text_words)
        judged = task.judge(feed, batch)
    if not math.isfinite(quality.loss):
        raise UserError(f"{subject}: its loss is {quality.loss}: the weights are no good")
    about = _about(config, store, feed) | {"targets": quality.tokens, "precision": precision or "fp32"}
    about[REQUEST] = scoring.request(words)
    own = scoring.name or _default_name(config, store, scoring.split, run)
    parts = [own, precision if scoring.name is None else None, f"first{examples}" if examples else None]
    full_name = "-".join(part for part in parts if part)
    kept = keep(subject, full_name, judged.beside(quality).scores, judged.details, about, outputs)
    is_own = full_name == loaded.config.task.name
    write_predictions(RunDir(Path(kept["file"]).parent), map(asdict, judged.predictions), None if is_own else full_name)
    return kept


def check_evaluation(
    name: str, config: RunConfig, words: list[str], scoring: Scoring, config_dir: Path | None = None
) -> None:
    """Raise UserError if a run with this config cannot be evaluated so; no run is needed, and no data is read."""
    scoring.check()
    _asked(name, config, words, config_dir, None)


def is_evaluated(run: RunDir, words: list[str], scoring: Scoring) -> bool:
    """Return whether a run keeps the scores of such an evaluation; scores that cannot be read are none."""
    wanted = scoring.request(words)
    details = (kept.get("details") or {} for kept in (read_scores(run.path) or {}).values())
    return any((of.get("about") or {}).get(REQUEST) == wanted for of in details)


def _about(config: RunConfig, store: AnyStore, feed: Feed) -> dict[str, Any]:
    """Return what was scored: the task, the data, and the device."""
    scored = store.splits[feed.scored]
    return {
        "task": config.task.name,
        "data": config.data.model_dump(mode="json", exclude_defaults=True),
        "data_fingerprint": store.fingerprint,
        "split": feed.scored,
        f"{feed.scored}_fingerprint": getattr(store, f"{feed.scored}_fingerprint"),
        "text_lost": scored.text_lost,
        "unknown_tokens": scored.unknown_tokens,
        "texts_cut": feed.cut,
        "targets_cut": feed.targets_cut,
        "samples": feed.validation_samples,
        "device_name": device_for(config).name,
    }


def _default_name(config: RunConfig, store: AnyStore, split: Split, run: RunDir | None) -> str:
    """Return the name of the task and of the split; if that is not the run's own, of the data in its place.

    Scores under the name of the task, or with ON_TEST behind it, are those of the run's own splits, which reports rank.
    """
    rows = run.read_record() if run else []
    scored = getattr(store, f"{split}_fingerprint")
    own = rows[0].get(f"{split}_fingerprint") if rows else None
    unknown = own is None and (split == "validation" or run is None)  # an earlier version, or a pretrained model
    if unknown or scored is None or own == scored:
        return config.task.name + (ON_TEST if split == "test" else "")
    return f"{config.task.name}{ELSEWHERE}{scored[:6]}"


def evaluate_by_harness(
    subject: str,
    tasks: list[str],
    folder: Path | None,
    limit: int | None,
    trust_code: bool,
    words: list[str],
    outputs: Path,
    config_dir: Path | None = None,
    say: Say = lambda line: None,
) -> list[dict[str, Any]]:
    """Score a causal subject on tasks of lm-eval, keep the scores, and return one document for each task.

    Args:
        folder: the folder with the user's own task files.
        limit: score only the first documents of each task, this many [default: all].
        trust_code: whether task files may run Python.
        words: overrides of a pretrained model's config.

    Raises UserError.
    """
    from lmexp.inference.harness import run

    loaded = load_subject(subject, outputs, config_dir, None, tuple(words), say)
    if not subject.startswith(PREFIX):
        check_scores(find_run(subject, outputs, is_finished=True))
    by_task = run.evaluate(loaded, [task.strip() for task in tasks], folder, limit, trust_code, say)
    about = {"lm_eval": version("lm_eval"), "limit": limit}
    return [
        keep(subject, task if limit is None else f"{task}-first{limit}", scores, {}, about, outputs)
        for task, scores in by_task.items()
    ]


def keep(
    subject: str, name: str, scores: dict[str, float], details: dict[str, Any], about: dict[str, Any], outputs: Path
) -> dict[str, Any]:
    """Keep scores with their run, or under outputs/eval for a pretrained model, and return them as one document."""
    if subject.startswith(PREFIX):
        slug = re.sub(r"[^a-z0-9._-]+", "_", subject.removeprefix(PREFIX).lower()).strip("._-")
        run = RunDir(outputs / "eval" / slug[-80:])
        run.path.mkdir(parents=True, exist_ok=True)
        check_links(run.path)
        write_json(run.path / "subject.json", {"subject": subject})
    else:
        run = find_run(subject, outputs, is_finished=True)
    add_scores(run, name, scores, details | {"about": about})
    return {
        "subject": subject,
        "name": name,
        "scores": scores,
        "details": details,
        "about": about,
        "file": str(run.path / SCORES),
    }


def build_task(model: nn.Module, config: RunConfig, precision: str | None) -> Task:
    """Return the task with a model in a precision, on the device of this machine."""
    device = device_for(config)
    model = model.to(device.kind)
    if precision is not None:
        compute = config.precision.compute
        convert(model, precision, "bf16" if compute == "fp8" else compute)
    task: Task = load_target(config.task.target, "task")(model, config)
    return task.to(device.kind)


def _multiplied_in(config: RunConfig, precision: str | None) -> str:
    """Return what a model computes in: with integer weights, what it was trained in, otherwise `precision`."""
    return config.precision.compute if precision in INTEGERS else precision or "fp32"


def _asked(
    subject: str, trained: RunConfig, words: list[str], config_dir: Path | None, run: RunDir | None
) -> RunConfig:
    """Return the config to score a model with: with other data or another task. Raises UserError if it does not fit."""
    config = _other(trained, words, config_dir, run)
    config.model.check()
    check_task(config)
    _check_head(subject, config.task, trained.task)
    return config


def _other(config: RunConfig, words: list[str], config_dir: Path | None, run: RunDir | None) -> RunConfig:
    """Return a config with other data or another task, and the tokenizer that the model knows. Raises UserError."""
    keys = [_key(word) for word in words]
    for key, word in zip(keys, words, strict=True):
        if key.split(".")[0] not in SECTIONS:
            raise UserError(f"{word}: eval takes other data=... and another task=...; the model stays what it is")
    if not words:
        return config
    allow_code(words, config_dir)
    changes: dict[str, Any] = {}
    if "data" in keys or "task" in keys:
        whole = [word for word in words if _key(word).split(".")[0] in keys]
        composed = Composer(paths.search_roots(config_dir), words=whole).config({})
        changes = {section: getattr(composed, section) for section in SECTIONS if section in keys}
    for section, schema in (("data", DataConfig), ("task", TaskConfig)):
        if section not in keys and any(key.startswith(f"{section}.") for key in keys):
            changes[section] = _changed(getattr(config, section), schema, words, section)
    if "data" in changes and run is not None:
        changes["tokenizer"] = _saved(run.final / TOKENIZER)
        target = run.final / TARGET_TOKENIZER
        changes["target_tokenizer"] = _saved(target) if target.is_file() else None
    return config.model_copy(update=changes)


def _changed(section: Any, schema: Any, words: list[str], name: str) -> Any:
    """Return a section of the run's own config with some of its values changed."""
    plain = section.model_dump(mode="json", by_alias=True) | ({"fingerprint": None} if name == "data" else {})
    overrides = [word.split(".", 1)[1] for word in words if _key(word).startswith(f"{name}.")]
    merged: Any = OmegaConf.to_container(OmegaConf.merge(plain, OmegaConf.from_dotlist(overrides)))
    try:
        return TypeAdapter(schema).validate_python(merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join([name, *(str(part) for part in first["loc"] if part in merged)])
        raise UserError(f"{key}: {fault_of(first)}") from None


def _check_head(subject: str, task: TaskSection, trained: TaskSection) -> None:
    """Raise UserError for a task that needs another head than the model has."""
    heads = [section.holds if section.head == "labels" else "vocabulary" for section in (task, trained)]
    if heads[0] != heads[1]:
        raise UserError(
            f"{subject} was trained for task={trained.name} and has no head for task={task.name}; "
            f"train one on its weights with init.run={subject} task={task.name}"
        )


def _saved(path: Path) -> TokenizerConfig:
    return SavedTokenizerConfig(kind="saved", path=absolute_text(path), fingerprint=load_tokenizer(path).fingerprint)


def _same_model(config: RunConfig, trained: RunConfig) -> RunConfig:
    """Return a config with the model as it was trained. Raises UserError for a label that the model does not know."""
    task, before = config.task, trained.task
    if isinstance(task, LabelTaskSection):
        assert isinstance(before, LabelTaskSection)
        known = before.labels or []
        if unknown := [label for label in task.labels or [] if label not in known]:
            raise UserError(f"this model does not know the label {unknown[0]}; it knows {', '.join(known)}")
        config = config.model_copy(update={"task": task.model_copy(update={"labels": known})})
    return config.model_copy(update={"model": trained.model})


def _key(word: str) -> str:
    return str(parse_overrides([word])[0].key_or_group)
