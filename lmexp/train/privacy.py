"""What makes the steps of a run private, and what its checkpoints keep of that."""

from typing import Any

from lmexp.config.checks import micro_batch, sequences
from lmexp.models.sample_gradients import SampleGradients
from lmexp.tasks.base import Task
from lmexp.tasks.private import PrivateSteps
from lmexp.train.callbacks import StepCallback
from lmexp.train.progress import Progress


def private_steps(task: Task, noise_multiplier: float) -> PrivateSteps:
    """Return what makes the steps of a task private."""
    config = task.config
    return PrivateSteps(
        gradients=SampleGradients(task.model),
        clip=config.privacy.clip,
        noise_multiplier=noise_multiplier,
        sequences=sequences(config),
        micro=micro_batch(config),
        seed=config.seed,
    )


class Privacy(StepCallback):
    """Keeps in checkpoints what a resumed run must go on with: the same noise, and the count of sequences drawn."""

    def __init__(self, progress: Progress, private: PrivateSteps) -> None:
        super().__init__(progress)
        self.private = private

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"noise_multiplier": self.private.noise_multiplier, "sampled": self.private.sampled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.private.noise_multiplier = float(state_dict["noise_multiplier"])
        self.private.sampled = int(state_dict["sampled"])
