"""The section of tagging."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.tasks.base import Holds, LabelTaskSection


class TagConfig(LabelTaskSection):
    """Predict a tag for each word of a sentence: IOB2 spans. The labels are the tags, O first."""

    holds: ClassVar[Holds] = "tags"
    per_token: ClassVar[bool] = True
    main_score: ClassVar[str | None] = "span_f1"

    target: Literal["lmexp.tasks.tag.Tag"] = Field(alias="_target_")
    name: Literal["tag"] = "tag"
