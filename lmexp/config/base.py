"""What every part of the config is made of: strict, immutable sections, and numbers that are numbers."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0)]
Dtype = Literal["fp32", "bf16", "fp16"]
Compute = Literal["fp32", "tf32", "bf16", "fp16", "fp8"]


def fault_of(error: Mapping[str, Any]) -> str:
    """Return what is wrong, from one of pydantic's errors, in words that can stand inside a sentence."""
    said = str(error["msg"]).removeprefix("Value error, ")
    return said[0].lower() + said[1:]


class Section(BaseModel):
    """A part of the config: immutable, no keys beyond those named, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_booleans(cls, values: Any) -> Any:
        """Refuse true and false where a number belongs: Python, and pydantic after it, would take them for 1 and 0."""
        wrong: list[InitErrorDetails] = []
        for name, field in cls.model_fields.items() if isinstance(values, dict) else ():
            key = field.alias if field.alias and field.alias in values else name
            kinds = _kinds(cls, name)
            is_number = kinds & {int, float} and not kinds & {bool, Any, BaseModel}
            for place, value in _booleans(values[key], (key,)) if is_number and key in values else ():
                error = NO_BOOLEAN_BUT_TEXT if str in kinds else NO_BOOLEAN
                wrong.append({"type": error, "loc": place, "input": value})
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return values


NO_BOOLEAN = PydanticCustomError("no_boolean", "a number is expected, not true or false")
NO_BOOLEAN_BUT_TEXT = PydanticCustomError("no_boolean_but_text", "a number or a text is expected, not true or false")


@cache
def _kinds(section: type[Section], field: str) -> frozenset[Any]:
    """Return the types that occur in a field's annotation; any section counts as BaseModel, whose fields check it.

    `str` is left out for a list of allowed texts: none of them is one that YAML takes for a boolean.
    """
    kinds: set[Any] = set()
    annotations: list[Any] = [section.model_fields[field].annotation]
    while annotations:
        annotation = annotations.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            kinds.add(BaseModel)
        elif get_origin(annotation) is Literal:
            kinds.update({type(value) for value in get_args(annotation)} - {str})
        elif get_origin(annotation) is dict:
            annotations.append(get_args(annotation)[1])
        elif parts := get_args(annotation):
            annotations += parts
        elif annotation is Any or isinstance(annotation, type):
            kinds.add(annotation)
    return frozenset(kinds)


def _booleans(value: Any, place: tuple[int | str, ...]) -> Iterator[tuple[tuple[int | str, ...], bool]]:
    """Yield the booleans in a value, however nested, each with its place."""
    if isinstance(value, bool):
        yield place, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _booleans(item, (*place, key))


class OutsideSection(Section):
    """A part of the config whose `_target_` names code from outside lmexp; the other keys are that code's arguments.

    Reading one imports nothing: see trust.py for who may name code, and for the checks before it is used.
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
