"""The section of sequence to sequence."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lmexp.config.base import Count
from lmexp.config.models.base import Reads
from lmexp.config.tasks.base import Holds, TaskSection


class Seq2SeqConfig(TaskSection):
    """Predict a target text from a source text: translation, summarisation."""

    reads: ClassVar[tuple[Reads, ...]] = ("source_to_target",)
    holds: ClassVar[Holds] = "pairs"
    main_score: ClassVar[str | None] = "bleu"

    target: Literal["lmexp.tasks.seq2seq.Seq2Seq"] = Field(alias="_target_")
    name: Literal["seq2seq"] = "seq2seq"
    beams: Count = 1
    """Continuations that are kept while a target is generated to be scored; 1 is greedy."""
    length_penalty: Annotated[float, Field(ge=0)] = 0.6
    """alpha of Wu et al. 2016, equation 14, by which beams of unequal length are compared."""
    scored: Count = 200
    """How many pairs of the validation split, from the first on, are generated and scored at the end."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing of the training loss (Szegedy et al. 2016); the validation loss has none."""
