"""Membership attacks on a finished run: they compare its training documents with its validation documents."""

from pathlib import Path
from typing import Any

from lmexp.config.checks import check_task
from lmexp.data.membership import membership_texts
from lmexp.errors import UserError
from lmexp.inference.evaluate import build_task, keep
from lmexp.inference.subject import PREFIX, load_subject
from lmexp.messages import Say, silent
from lmexp.resolve.inputs import InputResolver
from lmexp.runs.columns import MEMBERSHIP
from lmexp.runs.directory import STORES
from lmexp.runs.find import find_run
from lmexp.runs.scores import check_scores
from lmexp.tasks.base import Task
from lmexp.tasks.membership import score_membership
from lmexp.train.checkpoint import Loaded

DEFAULT_DOCUMENTS = 1000
"""How many documents of each split are compared, at most."""


def evaluate_membership(
    subject: str,
    outputs: Path,
    config_dir: Path | None = None,
    reference: str | None = None,
    count: int | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """Attack a finished run, keep the scores, and return them as one document, as `evaluate` does.

    Args:
        subject: a finished run, as find_run knows it.
        reference: a run or a pretrained model with the same tokenizer, which has not seen the run's training documents;
            None leaves that attack out.
        count: how many documents of each split to compare, at most [default: 1,000].

    Raises UserError.
    """
    if subject.startswith(PREFIX):
        raise UserError(f"{subject}: membership needs a run of lmexp, because only its training documents are known")
    run = find_run(subject, outputs, is_finished=True)
    check_scores(run)
    loaded = load_subject(subject, outputs, config_dir, say=say)
    task, config = _causal_task(subject, loaded), loaded.config
    other = None if reference is None else load_subject(reference, outputs, config_dir, say=say)
    context = config.model.context
    if other is not None and reference is not None:
        if other.config.run is not None and other.config.run == config.run:
            raise UserError(f"--reference {reference} is the run itself; name another one")
        context = min(context, other.config.model.context)
        if other.tokenizer.fingerprint != loaded.tokenizer.fingerprint:
            raise UserError(f"--reference {reference}: it must have the tokenizer of {subject}, and has another one")
        if other.config.data.fingerprint == config.data.fingerprint:
            say(f"warning: {reference} was trained on the same source, so it has seen the training documents too")
    store = InputResolver(outputs / STORES, say).store(config)
    texts = membership_texts(store, context, count or DEFAULT_DOCUMENTS)
    compared = None if other is None else _causal_task(f"--reference {reference}", other)
    measured = score_membership(task, texts, loaded.tokenizer, compared)
    about = {
        "data_fingerprint": store.fingerprint,
        "reference": reference,
        "split_by": "source" if "validation" in config.data.own_splits else config.data.split,
    }
    return keep(subject, MEMBERSHIP, measured.scores, measured.details, about, outputs)


def _causal_task(subject: str, loaded: Loaded) -> Task:
    """Return the task of a model. Raises UserError unless the model predicts the next token."""
    if not loaded.config.task.predicts_next:
        raise UserError(f"{subject} was trained for task={loaded.config.task.name}; membership needs task=causal_lm")
    check_task(loaded.config)
    return build_task(loaded.model, loaded.config, None)
