"""Parameters and FLOPs, counted from the config alone, by structure.

The convention: a multiply-add is 2 FLOPs, and a training step costs three forward passes (Kaplan et al.
2020, section 2.1). So each token costs 6 for every parameter that multiplies it, output head included and
once if tied, and 12 H h min(window, T) for the two matmuls of each layer's attention, which are counted
in full (not halved for causality). Lookups, norms, biases and activations do not count. That is what
torch's FlopCounterMode counts on meta tensors, and a test holds the two equal.

The parts are kept by name, so that other conventions can be derived: published FLOPs for one model differ
by up to three times, and fitted exponents move with them.
"""

from dataclasses import dataclass

from lmexp.config.schema import GPTConfig, ModelConfig


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
    """Parameters that multiply each token, output head included."""
    parts: dict[str, int]
    """Training FLOPs per token, by named part, at sequences of the full context."""

    @property
    def flops_per_token(self) -> int:
        """Training FLOPs per token: forward and backward."""
        return sum(self.parts.values())

    def conventions(self) -> dict[str, int]:
        """Return the training FLOPs per token as others count them, under the record's names.

        - `6n`: six for every parameter, embeddings included (Hoffmann et al. 2022: C = 6 N D);
        - `kaplan`: six for every parameter but embeddings and head, nothing for attention's scores
          (Kaplan et al. 2020, section 2.1: C = 6 N a token);
        - `causal`: ours, with half of attention's scores, as only half of them are used;
        - `hardware`: what fused attention executes: its backward pass computes the scores again, 14 instead of
          12 H h T (Dao et al. 2022, section 3.1);
        - `recompute`: that, with the forward pass of every layer done again in the backward pass, as activation
          checkpointing does (Korthikanti et al. 2022); the head is not.
        """
        scores, head = self.parts["attention_scores"], self.parts["head"]
        total = self.flops_per_token
        return {
            "flops_per_token_6n": 6 * self.n_params,
            "flops_per_token_kaplan": total - scores - head,
            "flops_per_token_causal": total - scores // 2,
            "flops_per_token_hardware": total + scores // 6,
            "flops_per_token_recompute": total + scores // 6 + (total - head) // 3,
        }


def count_model(config: ModelConfig) -> ModelCount:
    """Count a model whose vocabulary is resolved. Raises ValueError when it is not."""
    if config.vocab_size is None:
        raise ValueError("the vocabulary must be resolved before a model is counted")
    return _count_gpt(config, config.vocab_size)


def _count_gpt(config: GPTConfig, vocab: int) -> ModelCount:
    layers, width, hidden = config.n_layers, config.d_model, config.d_feed_forward
    attention = 4 * width * width  # query, key, value, output
    feed_forward = 2 * width * hidden
    head = vocab * width
    biases = (4 * width + hidden + width) if config.bias else 0
    norm = 2 * width if config.bias else width
    embedding = head + config.context * width
    total = embedding + layers * (attention + feed_forward + biases + 2 * norm) + norm
    if not config.tie_embeddings:
        total += head
    return ModelCount(
        n_params=total,
        n_params_active=total,
        n_params_embedding=embedding,
        n_params_matmul=layers * (attention + feed_forward) + head,
        parts={
            "attention_projections": 6 * layers * attention,
            "attention_scores": 12 * layers * width * config.context,
            "feed_forward": 6 * layers * feed_forward,
            "head": 6 * head,
        },
    )
