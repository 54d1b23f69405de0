"""The section of models of the transformers library; what the library makes of it is in config/hf.py."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from lmexp.config.models.base import CountedSection, Reads

Predicts = Literal["causal", "masked", "seq2seq"]
READS: dict[Predicts, Reads] = {
    "causal": "left_to_right",
    "masked": "both_ways",
    "seq2seq": "source_to_target",
}
"""How a model reads, by the head that it has."""


class HFConfig(CountedSection):
    """A model of the transformers library: of one of its architectures with fresh weights, or a pretrained one.

    `context` is the longest sequence, in tokens; of a seq2seq model, of source and target each. `n_layers`, `d_model`
    and `n_heads` are filled in when the config is resolved.
    """

    ways: ClassVar[tuple[Reads, ...]] = tuple(READS.values())

    target: Literal["lmexp.models.hf.HFModel"] = Field(alias="_target_")
    family: Literal["hf"] = "hf"
    predicts: Predicts
    """Which of the library's heads it has: AutoModelForCausalLM, ForMaskedLM, ForSeq2SeqLM."""
    model_type: str | None = None
    """An architecture by the library's name, as in gpt2, with fresh weights; of a pretrained model it is filled in."""
    config: dict[str, Any] = {}
    """What its config is to have besides its defaults, by the library's names; of a pretrained model, all of it is
    filled in."""
    pretrained: str | None = None
    """Instead: a folder, or a model's name on the hub; its safetensors are read, never pickles."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    fingerprint: str | None = None
    """Hash of the pretrained weights, filled in when the config is resolved; stands for the folder in identities."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run. It can do anything that you can."""
    draws_weights: bool = False
    """Whether other weights take the place of the pretrained ones, whose folder is then needed for its code alone;
    filled in for models with such code."""

    @property
    def reads(self) -> Reads:
        """By its head."""
        return READS[self.predicts]

    @property
    def not_in_identity(self) -> set[str]:
        """The fingerprint stands for where pretrained weights were found."""
        return super().not_in_identity | ({"pretrained", "revision"} if self.fingerprint else set())

    @property
    def module(self) -> str:
        """A model that reads two sequences is another class."""
        return "lmexp.models.hf.HFSeq2Seq" if self.predicts == "seq2seq" else self.target

    def with_vocabularies(self, vocab_size: int, source_vocab_size: int) -> Self:
        """See ModelSection.with_vocabularies; one table serves both tokenizers of a pair."""
        return super().with_vocabularies(max(vocab_size, source_vocab_size), source_vocab_size)

    def without_weights(self) -> Self:
        """See ModelSection.without_weights; code that comes with a model is needed as long as the model is."""
        if self.trust_remote_code and self.pretrained is not None:
            return self.model_copy(update={"draws_weights": True})
        return self.model_copy(update={"pretrained": None, "revision": None})
