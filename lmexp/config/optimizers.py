"""Optimizer sections: what every optimizer shares, and what belongs to one.

Adam, AdamW and SGD have sections of their own, whose defaults are a part of run identities. Every other optimizer, of
torch's (`_target_: torch.optim.RAdam`) or from outside (`_target_: my_study.lion.Lion`), takes its other keys as
keyword arguments, as torch's do; a config file is all that it needs.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from lmexp.config.base import OutsideSection, Section
from lmexp.errors import UserError


class OptimSection(Section):
    """What every optimizer shares."""

    target: str = Field(alias="_target_")
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate; the schedule multiplies it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """On matrices and embeddings only; never on norms and biases."""
    grad_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest global norm of the gradient; null clips nothing."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that this optimizer has besides `lr` and `weight_decay`."""
        return self.model_dump(exclude=set(OptimSection.model_fields))

    @property
    def has_fused_kernel(self) -> bool:
        """Whether torch has a fused kernel of it on CPUs and on CUDA devices."""
        return False

    @property
    def moments(self) -> tuple[str, ...] | None:
        """The names of the tensors that its state holds for each weight, in the weight's own shape; None: not known."""
        return None

    def check(self) -> None:
        """Raise UserError for values that cannot be combined."""


class AdamConfig(OptimSection):
    """Adam (Kingma and Ba 2015), or AdamW with decoupled weight decay (Loshchilov and Hutter 2019)."""

    target: Literal["torch.optim.AdamW", "torch.optim.Adam"] = Field(alias="_target_")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: Annotated[float, Field(gt=0)] = 1e-8

    @property
    def has_fused_kernel(self) -> bool:
        """See OptimSection."""
        return True

    @property
    def moments(self) -> tuple[str, ...]:
        """See OptimSection."""
        return ("exp_avg", "exp_avg_sq")


class SGDConfig(OptimSection):
    """Stochastic gradient descent with momentum."""

    target: Literal["torch.optim.SGD"] = Field(alias="_target_")
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False

    @property
    def moments(self) -> tuple[str, ...]:
        """See OptimSection."""
        return ("momentum_buffer",) if self.momentum else ()

    def check(self) -> None:
        """Raise UserError for values that cannot be combined."""
        if self.nesterov and not self.momentum:
            raise UserError("optim.nesterov needs a momentum: set optim.momentum, or optim.nesterov=false")


class OtherOptim(OptimSection, OutsideSection):
    """Any other optimizer, of torch's or from outside."""

    target: str = Field(alias="_target_")

    @property
    def arguments(self) -> dict[str, Any]:
        """See OptimSection."""
        return dict(self.model_extra or {})


def _kind(value: Any) -> str:
    target = value.get("_target_", value.get("target")) if isinstance(value, dict) else getattr(value, "target", None)
    if target in ("torch.optim.AdamW", "torch.optim.Adam"):
        return "(adam)"
    return "(sgd)" if target == "torch.optim.SGD" else "(other)"


OptimConfig = Annotated[
    Annotated[AdamConfig, Tag("(adam)")] | Annotated[SGDConfig, Tag("(sgd)")] | Annotated[OtherOptim, Tag("(other)")],
    Discriminator(_kind),
]
