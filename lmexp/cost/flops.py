"""Parameters and FLOPs, counted from the config alone, by structure.

The convention: a multiply-add is 2 FLOPs, and a training step costs three forward passes (Kaplan et al.
2020, section 2.1). So each token costs 6 for every parameter that multiplies it, output head included and
once if tied, and 12 H h min(window, T) for the two matmuls of each layer's attention, which are counted
in full (not halved for causality). A mixture of experts counts those that a token goes through; an LSTM has no such
term; an encoder-decoder counts each stack by its own positions, and a token is a position of either. Lookups, norms,
biases and activations do not count. That is what torch's FlopCounterMode counts on meta tensors, and a test holds the
two equal.

The parts are kept by name, so that other conventions can be derived: published FLOPs for one model differ
by up to three times, and fitted exponents move with them.
"""

from collections.abc import Mapping
from dataclasses import replace

from lmexp.config.models.base import ModelSection
from lmexp.config.models.count import ModelCount, whole
from lmexp.config.schema import RunConfig
from lmexp.config.tasks.base import TaskSection


def count_model(config: ModelSection, task: TaskSection | None = None) -> ModelCount:
    """Count a model whose vocabulary is resolved, with the head of a task (None: one over the vocabulary).

    Raises ValueError when something is not resolved.
    """
    if config.vocab_size is None:
        raise ValueError("the vocabulary must be resolved before a model is counted")
    return config.count(task.label_head() if task else None)


def count_shared(config: RunConfig, parts: Mapping[int, int]) -> ModelCount:
    """Count a run whose sequences are shared by examples: the mean over steps of what a token costs.

    `parts` says in how many steps of an epoch so many examples share the context: attention has shorter sequences then.
    A family that torch has counted is counted at the full context.
    """
    whole_context = count_run(config)
    total = dict.fromkeys(whole_context.parts, 0.0)
    for number, steps in parts.items():
        shorter = {"context": config.model.context // number}
        if "input_context" in type(config.model).model_fields:
            shorter["input_context"] = config.model.source_limit[0] // number
        model = config.model if number == 1 else config.model.model_copy(update=shorter)
        for name, flops in count_run(config.model_copy(update={"model": model})).parts.items():
            total[name] += steps * flops
    return replace(whole_context, parts={name: whole(flops / sum(parts.values())) for name, flops in total.items()})


def count_run(config: RunConfig) -> ModelCount:
    """Count a run's model with the head of its task; a frozen body goes forward only, a third of its training."""
    count = count_model(config.model, config.task)
    if not config.init.freeze:
        return count
    labels = config.task.label_head()
    assert labels is not None and config.model.d_model is not None, "a body is frozen under a head over labels"
    parts = {name: flops if name == "head" else whole(flops / 3) for name, flops in count.parts.items()}
    return replace(count, parts=parts, n_params_frozen=count.n_params_active - labels.params(config.model.d_model))
