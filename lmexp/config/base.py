"""What every part of the config is made of: strict, immutable sections, and numbers that are numbers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag


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


class OutsideSection(Section):
    """A part of the config whose `_target_` names code from outside lmexp; the other keys are that code's arguments.

    Reading one imports nothing: see code.py for who may name code, and for the checks before it is used.
    """

    model_config = ConfigDict(extra="allow")

    target: str = Field(alias="_target_")
    """Dotted name of a class or a function, as in my_study.data.verses."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys that are the code's own."""
        return dict(self.model_extra or {})


SHIPPED, OUTSIDE = Tag("(shipped)"), Tag("(outside)")
"""Which of two kinds a section is: lmexp's own, or one with a `_target_`."""


def _origin(value: Any) -> str:
    is_outside = isinstance(value, OutsideSection) or (isinstance(value, dict) and "_target_" in value)
    return (OUTSIDE if is_outside else SHIPPED).tag


BY_ORIGIN = Discriminator(_origin)
"""Tells OUTSIDE from SHIPPED."""


def is_tag(part: int | str) -> bool:
    """Whether a part of the place of an error is a tag of a union, which a user has not written."""
    return isinstance(part, str) and part.startswith("(")
