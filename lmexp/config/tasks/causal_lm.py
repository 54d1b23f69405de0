"""The section of causal language modelling."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.tasks.base import TaskSection


class CausalLMConfig(TaskSection):
    """Predict each token from those before it."""

    has_loss_of_each_sequence: ClassVar[bool] = True

    target: Literal["lmexp.tasks.causal_lm.CausalLM"] = Field(alias="_target_")
    name: Literal["causal_lm"] = "causal_lm"
    document_masks: bool = False
    """Whether the documents that share a sequence are kept apart: no position sees another document, and learned
    positions begin anew with each. Otherwise a document sees those before it in its sequence."""

    @property
    def masks_documents(self) -> bool:
        """See TaskSection."""
        return self.document_masks
