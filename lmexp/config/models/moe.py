"""The section of the mixture of experts."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lmexp.config.base import Count
from lmexp.config.models.base import WIDE
from lmexp.config.models.llama import LlamaSection
from lmexp.errors import UserError


class MoEConfig(LlamaSection):
    """Llama with a mixture of experts in place of each feed-forward layer (Shazeer et al. 2017, Jiang et al. 2024).

    `d_ff` is the width of one expert.
    """

    computes_in_narrow_weights: ClassVar[bool] = False  # the router reads and multiplies in float32
    shape: ClassVar[tuple[str, ...]] = (*LlamaSection.shape, "n_experts", "experts_per_token", "n_shared_experts")

    target: Literal["lmexp.models.moe.MoE"] = Field(alias="_target_")
    family: Literal["moe"] = "moe"
    n_experts: Count
    """Experts that a token is routed among, in each layer."""
    experts_per_token: Count = 2
    """How many of them it goes through."""
    n_shared_experts: Annotated[int, Field(ge=0)] = 0
    """Experts of the same width that every token goes through besides (Dai et al. 2024)."""
    balance: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the loss that keeps experts evenly used (Fedus et al. 2021, equations 4 to 6)."""

    @property
    def feed_forward_params(self) -> tuple[int, int, int]:
        """See LlamaSection."""
        _, expert, _ = super().feed_forward_params
        used, held = (count + self.n_shared_experts for count in (self.experts_per_token, self.n_experts))
        return self.d_model * self.n_experts, used * expert, held * expert

    def check(self) -> None:
        """See ModelSection.check."""
        super().check()
        if self.experts_per_token > self.n_experts:
            raise UserError(
                f"model.experts_per_token={self.experts_per_token} are more than the {self.n_experts} experts"
            )

    def feed_forward_bytes(self, value: int, stream: int) -> int:
        """See LlamaSection."""
        used, shared, width = self.experts_per_token, self.n_shared_experts, self.d_model
        read = self.read_by(2, value, stream)
        kept = used * (read + width * value) + 4 * (used + shared) * self.d_feed_forward * value + width * WIDE
        routing = 14 * self.n_experts + 50 * self.experts_per_token  # probabilities, orders and their inverse
        return kept + routing + (read if shared and value < WIDE else 0)  # the router reads in float32

    def feed_forward_outputs(self, value: int) -> int:
        """See LlamaSection."""
        used = self.experts_per_token + bool(self.n_shared_experts)
        hidden = (self.experts_per_token + self.n_shared_experts) * self.d_feed_forward
        return (2 * hidden + used * self.d_model) * value + self.n_experts * WIDE

    def backward_bytes(self, sequences: int, value: int, on_cpu: bool) -> int:
        """See ModelSection.backward_bytes: gradients of the outputs of each token's experts, while reordered."""
        return 0 if on_cpu else sequences * self.context * self.d_model * 10 * self.experts_per_token
