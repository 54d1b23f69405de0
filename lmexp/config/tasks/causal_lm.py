"""The section of causal language modelling."""

from typing import Literal

from pydantic import Field

from lmexp.config.tasks.base import TaskSection


class CausalLMConfig(TaskSection):
    """Predict each token from those before it."""

    target: Literal["lmexp.tasks.causal_lm.CausalLM"] = Field(alias="_target_")
    name: Literal["causal_lm"] = "causal_lm"
