"""The section of masked language modelling."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lmexp.config.models.base import Reads
from lmexp.config.tasks.base import TaskSection


class MaskedLMConfig(TaskSection):
    """Predict tokens that are hidden, from all others (Devlin et al. 2018, section 3.1)."""

    reads: ClassVar[tuple[Reads, ...]] = ("both_ways",)
    has_loss_of_each_sequence: ClassVar[bool] = True

    target: Literal["lmexp.tasks.masked_lm.MaskedLM"] = Field(alias="_target_")
    name: Literal["masked_lm"] = "masked_lm"
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    """Share of a sequence's tokens that are predicted; of these 80 % are shown as the mask, 10 % as another token,
    10 % as themselves."""

    @property
    def hidden_share(self) -> float:
        """See TaskSection."""
        return self.share
