"""What a model holds, and what training it on one token costs; the convention is explained in cost/flops.py."""

from dataclasses import dataclass

SCORES = ("attention_scores", "encoder_scores", "cross_scores")
"""Parts that are attention's two matmuls of activations."""
HEAD = ("head", "head_transform")
"""Parts that make predictions of the last hidden states."""


@dataclass(frozen=True)
class ModelCount:
    """What a model holds, and what training it on one token costs."""

    n_params: int
    """Trainable parameters; a tied head counts once."""
    n_params_active: int
    """Parameters that one token uses."""
    n_params_embedding: int
    """Token and position embeddings."""
    n_params_matmul: int
    """Parameters that multiply each token, output head included; of experts, the active ones (ModelSize says more)."""
    parts: dict[str, float]
    """Training FLOPs per token, by named part, at sequences of the full context."""
    is_causal: bool = True
    """Whether half of `attention_scores` is masked."""
    n_params_frozen: int = 0
    """Parameters that stay as they are; what only they multiply has no backward pass."""
    last_products: float = 0.0
    """FLOPs per token of the forward pass of each layer's last matmul, over all layers, if the backward pass does not
    need what it gives out: activation checkpointing leaves that matmul out."""

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token, forward and backward; a whole number but where stacks differ in length."""
        return whole(sum(self.parts.values()))

    def executed(self, recomputes_layers: bool, clips_sequences: bool = False) -> float:
        """Return the FLOPs per token that training executes, with fused attention.

        `clips_sequences` says that training is private: the norm of the gradient of each sequence takes one more
        product for each matrix. Where sequences are short, products of their positions take less, and this is a bound.

        `recomputes_layers` says that activation checkpointing does the forward pass of every layer again (`full`). What
        `selective` does again has no FLOPs by this count.
        """
        counted = self.conventions()
        if clips_sequences:
            return whole(counted["flops_per_token_hardware"] + 2 * self.n_params_matmul)
        if not recomputes_layers:
            return counted["flops_per_token_hardware"]
        return whole(counted["flops_per_token_recompute"] - self.last_products)

    def conventions(self) -> dict[str, float]:
        """Return the training FLOPs per token as others count them, under the record's names.

        - `6n`: six for every parameter, embeddings included (Hoffmann et al. 2022: C = 6 N D); of experts, for those
          that a token goes through;
        - `kaplan`: six for every parameter but embeddings and head, nothing for attention's scores
          (Kaplan et al. 2020, section 2.1: C = 6 N a token);
        - `causal`: ours, with half of attention's scores where only half of them are used;
        - `hardware`: what fused attention executes: its backward pass computes the scores again, 14 instead of
          12 H h T (Dao et al. 2022, section 3.1);
        - `recompute`: that, with the forward pass of every layer done again in the backward pass, as activation
          checkpointing does (Korthikanti et al. 2022); the head is not.
        """
        scores = sum(self.parts.get(name, 0) for name in SCORES)
        head = sum(self.parts.get(name, 0) for name in HEAD)
        masked = self.parts.get("attention_scores", 0) / 2 if self.is_causal else 0
        total = self.flops_per_token
        again = not self.n_params_frozen  # layers without a backward pass compute nothing twice
        counted = {
            "flops_per_token_6n": 6 * self.n_params_active - 4 * self.n_params_frozen,
            "flops_per_token_kaplan": total - scores - head,
            "flops_per_token_causal": total - masked,
            "flops_per_token_hardware": total + again * scores / 6,
            "flops_per_token_recompute": total + again * (scores / 6 + (total - head) / 3),
        }
        return {name: whole(flops) for name, flops in counted.items()}


@dataclass(frozen=True)
class LabelHead:
    """A head over labels, in place of one over the vocabulary."""

    n_labels: int
    per_token: bool
    """Whether every position has a label of its own, and not the sequence as a whole."""

    def params(self, width: int) -> int:
        """Return the weights and biases of a head that reads hidden states of this width."""
        return (width + 1) * self.n_labels

    def flops(self, width: int, positions: int) -> float:
        """Return the training FLOPs per token, in sequences of this many positions."""
        return whole(6 * width * self.n_labels / (1 if self.per_token else positions))


def whole(number: float) -> float:
    """Return a number as an integer where it is one."""
    return int(number) if float(number).is_integer() else number
