"""From a config to a module."""

import torch

from lmexp.config.code import load_target
from lmexp.config.models.base import ModelSection
from lmexp.config.tasks.base import LabelTaskSection, TaskSection
from lmexp.models.base import LanguageModel
from lmexp.models.labels import LabelModel


def build_model(config: ModelSection, seed: int, task: TaskSection | None = None) -> LanguageModel | LabelModel:
    """Build the model that a config's `_target_` names, in float32, with the head that a task needs.

    Every precision and every device starts from the same weights: they are drawn in float32 from `seed`
    alone, and converted afterwards where another type is wanted.
    """
    torch.manual_seed(seed)
    model: LanguageModel = load_target(config.module, "model")(config)
    if not isinstance(task, LabelTaskSection):
        return model
    return LabelModel(model, len(task.known_labels), task.pooling_of(config.reads))
