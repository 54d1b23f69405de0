"""muP: initial weights, learning rates and multipliers such that the best learning rate does not depend on the width.

Yang et al. 2022 (arXiv 2203.03466), table 8, whose rules allow tied embeddings. With m = d_model / mup_base_width:

    weights                     initial standard deviation     learning rate of Adam    output multiplied by
    embeddings, biases, norms   as without muP                 lr                       1
    matrices of the blocks      divided by sqrt(m)             lr / m                   1
    output head                 as without muP                 lr                       1 / m

Attention's scores are multiplied by sqrt(mup_base_head_size) / head size, in place of 1 / sqrt(head size). At the base
width, the model is the same as without muP. models/mup.py has the weights and multipliers, tasks/optim.py the
learning rates.
"""

from lmexp.config.base import Count
from lmexp.config.models.base import TransformerSection
from lmexp.errors import UserError


class MupSection(TransformerSection):
    """The keys of muP, for a family whose module applies it."""

    mup_base_width: Count | None = None
    """The `d_model` that `optim.lr` was chosen for: with muP, this rate also suits other widths. `d_ff` must grow in
    proportion to `d_model`. null: no muP."""
    mup_base_head_size: Count | None = None
    """Width of a head at that `d_model`; null means the same as in this model: a wider model has more heads."""

    @property
    def width_multiple(self) -> float:
        """See ModelSection."""
        return self.d_model / self.mup_base_width if self.mup_base_width else 1.0

    def attention_scale(self, head_size: int) -> float | None:
        """See TransformerSection."""
        base = self.mup_base_head_size
        return None if base is None or base == head_size else base**0.5 / head_size

    def check(self) -> None:
        """See ModelSection."""
        super().check()
        if self.mup_base_head_size is not None and self.mup_base_width is None:
            raise UserError("model.mup_base_head_size belongs to muP: set model.mup_base_width too")
