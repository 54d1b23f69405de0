"""From a config to a module."""

from typing import Any

import torch
from hydra.utils import get_class

from lmexp.config.models import HFConfig, ModelConfig
from lmexp.config.tasks import ClassifyConfig, TagConfig, TaskConfig
from lmexp.models.base import LanguageModel
from lmexp.models.labels import LabelModel


def without_weights(config: ModelConfig) -> ModelConfig:
    """Return a config that builds the same shape without looking for pretrained weights: others are to come."""
    if isinstance(config, HFConfig) and config.pretrained is not None:
        return config.model_copy(update={"pretrained": None})
    return config


def build_model(config: ModelConfig, seed: int, task: TaskConfig | None = None) -> LanguageModel | LabelModel:
    """Build the model that a config's `_target_` names, in float32, with the head that a task asks for.

    Every precision and every device starts from the same weights: they are drawn in float32 from `seed`
    alone, and converted afterwards by whoever wants them otherwise.
    """
    torch.manual_seed(seed)
    model: LanguageModel = _class_of(config)(config)
    if not isinstance(task, ClassifyConfig | TagConfig):
        return model
    if task.labels is None:
        raise ValueError("the labels must be resolved before a model is built")
    pooling = None
    if isinstance(task, ClassifyConfig):
        pooling = task.pooling or ("first" if config.reads == "both_ways" else "last")
    return LabelModel(model, len(task.labels), pooling)


def _class_of(config: ModelConfig) -> Any:
    """Return the class of a config's model: what `_target_` names, or that of models which read two sequences."""
    if isinstance(config, HFConfig) and config.predicts == "seq2seq":
        from lmexp.models.hf import HFSeq2Seq

        return HFSeq2Seq
    return get_class(config.target)
