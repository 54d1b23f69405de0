"""What every part of the config is made of: strict, immutable sections, and numbers that are numbers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def no_boolean(value: Any) -> Any:
    """YAML's true would pass for 1."""
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


Share = Annotated[float, BeforeValidator(no_boolean), Field(ge=0, le=1)]
Count = Annotated[int, BeforeValidator(no_boolean), Field(gt=0)]
Seed = Annotated[int, BeforeValidator(no_boolean), Field(ge=0, lt=2**32)]
Positive = Annotated[float, BeforeValidator(no_boolean), Field(gt=0)]
Dtype = Literal["fp32", "bf16", "fp16"]
Compute = Literal["fp32", "tf32", "bf16", "fp16", "fp8"]


class Section(BaseModel):
    """A part of the config: immutable, no keys beyond those named, no NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True, allow_inf_nan=False
    )
