"""The section of classification."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.models.base import Reads
from lmexp.config.tasks.base import LabelTaskSection, Pooling


class ClassifyConfig(LabelTaskSection):
    """Predict one label for a text."""

    main_score: ClassVar[str | None] = "f1_macro"

    target: Literal["lmexp.tasks.classify.Classify"] = Field(alias="_target_")
    name: Literal["classify"] = "classify"
    pooling: Pooling | None = None
    """Which hidden states the label is read off; null: the first where positions see both ways, else the last."""

    def pooling_of(self, reads: Reads) -> Pooling | None:
        """See LabelTaskSection."""
        return self.pooling or super().pooling_of(reads)
