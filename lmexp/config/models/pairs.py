"""What the sections of all encoder-decoders have: the source's sizes beside those of the target."""

from typing import ClassVar, Self

from lmexp.config.base import Count
from lmexp.config.models.base import Reads, StackSection, rows
from lmexp.errors import UserError


class PairSection(StackSection):
    """A model that reads a source and writes a target; `vocab_size` and `context` are the target's."""

    ways: ClassVar[tuple[Reads, ...]] = ("source_to_target",)

    input_vocab_size: Count | None = None
    """Rows of the source's embedding; null means its tokenizer's."""
    input_context: Count | None = None
    """Longest source, in tokens; null means context."""
    share_embeddings: bool = False
    """Whether source and target share one table; they need one tokenizer then."""
    tie_embeddings: bool = True
    """Whether the output head shares the target's table (Press and Wolf 2017)."""

    @property
    def source_context(self) -> int:
        """Longest source, resolved."""
        return self.input_context or self.context

    @property
    def source_limit(self) -> tuple[int, str]:
        """See ModelSection."""
        return self.source_context, "model.input_context"

    def with_vocabularies(self, vocab_size: int, source_vocab_size: int) -> Self:
        """See ModelSection.with_vocabularies. Raises UserError too where one table cannot serve both tokenizers."""
        source_rows = rows("model.input_vocab_size", self.input_vocab_size, source_vocab_size)
        filled = super().with_vocabularies(vocab_size, source_vocab_size)
        if self.share_embeddings and filled.vocab_size != source_rows:
            raise UserError("model.share_embeddings=true needs one tokenizer for both sides: target_tokenizer=null")
        return filled.model_copy(update={"input_vocab_size": source_rows})

    def resolved_vocabularies(self) -> tuple[int, int]:
        """Return the rows of the source's and of the target's table.

        Raises ValueError when one is not resolved, or when the two of a shared table differ.
        """
        source, target = self.input_vocab_size, self.vocab_size
        if source is None or target is None:
            raise ValueError("both vocabularies must be resolved before a model is built or counted")
        if self.share_embeddings and source != target:
            raise ValueError(f"one table cannot serve vocabularies of {source} and {target} tokens")
        return source, target

    def table_params(self) -> int:
        """Return the parameters of the tables of source and target."""
        source, target = self.resolved_vocabularies()
        return (target + (0 if self.share_embeddings else source)) * self.d_model
