"""Optimizer sections: what every optimizer shares, and what belongs to one.

Adam, AdamW, SGD and Muon have sections of their own, whose defaults are a part of run identities. Every other
optimizer, of torch's (`_target_: torch.optim.RAdam`) or from outside (`_target_: my_study.lion.Lion`), takes its other
keys as keyword arguments, as torch's do; a config file is all that it needs.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from lmexp.config.base import OutsideSection, Section
from lmexp.errors import UserError

Rate = Annotated[float, Field(gt=0)]


class OptimSection(Section):
    """What every optimizer shares."""

    target: str = Field(alias="_target_")
    lr: Rate | Literal["auto"]
    """Peak learning rate; the schedule multiplies it. `auto` stands for the number that a published rule gives, and is
    replaced by it when the run is planned (resolve/learning_rate.py)."""
    lr_rule: str | None = None
    """The rule that gave `lr`, filled in when `auto` is replaced; null for a rate that was given as a number."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """On matrices and embeddings only; never on norms and biases."""
    grad_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest global norm of the gradient; null clips nothing."""

    @property
    def peak_lr(self) -> float:
        """The peak learning rate of a planned run, which is a number."""
        assert self.lr != "auto", "a rule's learning rate is filled in when the run is planned"
        return self.lr

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

    @property
    def matrix_moments(self) -> tuple[str, ...] | None:
        """The same for the matrices of the blocks, which may have an optimizer of their own."""
        return self.moments

    def matrix_lr_factor(self, width_multiple: float) -> float | None:
        """Return what muP multiplies the learning rate of the blocks' matrices by; None: there is no rule for it.

        `width_multiple` is the model's width divided by that of muP's base model.
        """
        return None

    def check(self) -> None:
        """Raise UserError for values that cannot be combined."""


class AdamSection(OptimSection):
    """What every optimizer has that trains weights by Adam's rule."""

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


class AdamConfig(AdamSection):
    """Adam (Kingma and Ba 2015), or AdamW with decoupled weight decay (Loshchilov and Hutter 2019)."""

    target: Literal["torch.optim.AdamW", "torch.optim.Adam"] = Field(alias="_target_")

    def matrix_lr_factor(self, width_multiple: float) -> float:
        """See OptimSection; Yang et al. 2022, table 8: the rate of a hidden matrix is proportional to 1 / fan-in."""
        return 1 / width_multiple


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


class MuonConfig(AdamSection):
    """Muon (Jordan et al. 2024) for the matrices of the blocks, and AdamW for all other weights.

    `betas` and `eps` are AdamW's. Muon orthogonalises the momentum of each matrix. Matrices that are stored as one,
    such as those of queries, keys and values, are orthogonalised one by one.
    """

    target: Literal["torch.optim.Muon"] = Field(alias="_target_")
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    nesterov: bool = True
    ns_steps: Annotated[int, Field(gt=0, lt=100)] = 5
    """Number of Newton-Schulz iterations in each orthogonalisation."""
    adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """How the rate follows a matrix's shape. `match_rms_adamw`: updates are as large as AdamW's, so that one rate
    serves both (Liu et al. 2025, arXiv 2502.16982, section 2.2); `original`: by sqrt(max(1, rows / columns))."""
    adamw_lr: Rate | None = None
    """Peak learning rate of the weights that AdamW trains; null means `lr`."""

    @property
    def matrix_moments(self) -> tuple[str, ...]:
        """See OptimSection."""
        return ("momentum_buffer",)

    def matrix_lr_factor(self, width_multiple: float) -> float:
        """See OptimSection.

        An orthogonalised update has the spectral norm that muP asks for at every width (Yang et al. 2023, arXiv
        2310.17813, condition 1). The adjustment that matches AdamW multiplies it by sqrt(width), which is undone here.
        """
        return width_multiple**-0.5 if self.adjust_lr_fn == "match_rms_adamw" else 1.0


class OtherOptim(OptimSection, OutsideSection):
    """Any other optimizer, of torch's or from outside."""

    target: str = Field(alias="_target_")

    @property
    def arguments(self) -> dict[str, Any]:
        """See OptimSection."""
        return dict(self.model_extra or {})


def _kind(value: Any) -> str:
    target = value.get("_target_", value.get("target")) if isinstance(value, dict) else getattr(value, "target", None)
    kinds = {
        "torch.optim.AdamW": "(adam)",
        "torch.optim.Adam": "(adam)",
        "torch.optim.SGD": "(sgd)",
        "torch.optim.Muon": "(muon)",
    }
    return kinds.get(str(target), "(other)")


OptimConfig = Annotated[
    Annotated[AdamConfig, Tag("(adam)")]
    | Annotated[SGDConfig, Tag("(sgd)")]
    | Annotated[MuonConfig, Tag("(muon)")]
    | Annotated[OtherOptim, Tag("(other)")],
    Discriminator(_kind),
]
