"""Task configs: what is predicted."""

from typing import Annotated, Literal

from pydantic import Field

from lmexp.config.base import Count, Section

Labels = list[str]


class CausalLMConfig(Section):
    """Predict each token from those before it."""

    target: Literal["lmexp.tasks.causal_lm.CausalLM"] = Field(alias="_target_")
    name: Literal["causal_lm"] = "causal_lm"


class MaskedLMConfig(Section):
    """Predict tokens that are hidden, from all others (Devlin et al. 2018, section 3.1)."""

    target: Literal["lmexp.tasks.masked_lm.MaskedLM"] = Field(alias="_target_")
    name: Literal["masked_lm"] = "masked_lm"
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    """Share of a sequence's tokens that are predicted; of these 80 % are shown as the mask, 10 % as another token,
    10 % as themselves."""


class Seq2SeqConfig(Section):
    """Predict a target text from a source text: translation, summarisation."""

    target: Literal["lmexp.tasks.seq2seq.Seq2Seq"] = Field(alias="_target_")
    name: Literal["seq2seq"] = "seq2seq"
    beams: Count = 1
    """Continuations that are kept while a target is generated to be scored; 1 is greedy."""
    length_penalty: Annotated[float, Field(ge=0)] = 0.6
    """alpha of Wu et al. 2016, equation 14, by which beams of unequal length are compared."""
    scored: Count = 200
    """How many pairs of the validation split, from the first on, are generated and scored at the end."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the training loss (Szegedy et al. 2016); the validation loss is without."""


class ClassifyConfig(Section):
    """Predict one label for a text."""

    target: Literal["lmexp.tasks.classify.Classify"] = Field(alias="_target_")
    name: Literal["classify"] = "classify"
    labels: Labels | None = None
    """The labels of the training split, in order; filled in when the config is resolved."""
    pooling: Literal["first", "last", "mean"] | None = None
    """Which hidden states the label is read off; null: the first where positions see both ways, else the last."""


class TagConfig(Section):
    """Predict a tag for each word of a sentence: IOB2 spans."""

    target: Literal["lmexp.tasks.tag.Tag"] = Field(alias="_target_")
    name: Literal["tag"] = "tag"
    labels: Labels | None = None
    """The tags of the training split, O first; filled in when the config is resolved."""


TaskConfig = Annotated[
    CausalLMConfig | MaskedLMConfig | Seq2SeqConfig | ClassifyConfig | TagConfig, Field(discriminator="target")
]
