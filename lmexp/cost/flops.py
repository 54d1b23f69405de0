"""Parameters and FLOPs, counted from the config alone, by structure.

The convention: a multiply-add is 2 FLOPs, and a training step costs three forward passes (Kaplan et al.
2020, section 2.1). So each token costs 6 for every parameter that multiplies it, output head included and
once if tied, and 12 H h min(window, T) for the two matmuls of each layer's attention, which are counted
in full (not halved for causality). A mixture of experts counts those that a token goes through; an LSTM has no such
term; an encoder-decoder counts each stack by its own positions, and a token is a position of either. Lookups, norms,
biases and activations do not count. That is what torch's FlopCounterMode counts on meta tensors, and a test holds the
two equal.

The parts are kept by name, so that other conventions can be derived: published FLOPs for one model differ
by up to three times, and fitted exponents move with them.
"""

from dataclasses import dataclass, replace
from typing import Any

from lmexp.config.models import (
    BertConfig,
    EncDecConfig,
    GPTConfig,
    HFConfig,
    LlamaConfig,
    LlamaSection,
    LSTMConfig,
    ModelConfig,
    MoEConfig,
)
from lmexp.config.schema import RunConfig
from lmexp.config.tasks import ClassifyConfig, TagConfig, TaskConfig

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
    """Parameters that multiply each token, output head included; of experts, the active ones (HFSize says more)."""
    parts: dict[str, float]
    """Training FLOPs per token, by named part, at sequences of the full context."""
    is_causal: bool = True
    """Whether half of `attention_scores` is masked."""
    n_params_frozen: int = 0
    """Parameters that stay as they are; what only they multiply has no backward pass."""

    @property
    def flops_per_token(self) -> float:
        """Training FLOPs per token, forward and backward; a whole number but where stacks differ in length."""
        return whole(sum(self.parts.values()))

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


def count_model(config: ModelConfig, task: TaskConfig | None = None) -> ModelCount:
    """Count a model whose vocabulary is resolved, with the head of a task (None: one over the vocabulary).

    Raises ValueError when something is not resolved.
    """
    if config.vocab_size is None:
        raise ValueError("the vocabulary must be resolved before a model is counted")
    if isinstance(config, HFConfig):
        return _count_hf(config, task)
    counted = {
        GPTConfig: _count_gpt,
        LlamaConfig: _count_llama,
        MoEConfig: _count_llama,
        BertConfig: _count_bert,
        EncDecConfig: _count_encdec,
        LSTMConfig: _count_lstm,
    }
    count: Any = counted[type(config)]
    return count(config, config.vocab_size, _labels(task))


def count_run(config: RunConfig) -> ModelCount:
    """Count a run's model with the head of its task; a frozen body goes forward only, a third of its training."""
    count = count_model(config.model, config.task)
    if not config.init.freeze:
        return count
    labels = _labels(config.task)
    assert labels is not None and config.model.d_model is not None, "a body is frozen under a head over labels"
    parts = {name: flops if name == "head" else whole(flops / 3) for name, flops in count.parts.items()}
    return replace(count, parts=parts, n_params_frozen=count.n_params_active - labels.params(config.model.d_model))


def whole(number: float) -> float:
    """Return a number as an integer where it is one."""
    return int(number) if float(number).is_integer() else number


@dataclass(frozen=True)
class _Labels:
    """A head over labels, in place of one over the vocabulary."""

    count: int
    per_token: bool
    """Whether every position has one, and not the whole sequence."""

    def params(self, width: int) -> int:
        return (width + 1) * self.count

    def flops(self, width: int, positions: int) -> float:
        """Training FLOPs per token."""
        return whole(6 * width * self.count / (1 if self.per_token else positions))


def _labels(task: TaskConfig | None) -> _Labels | None:
    if not isinstance(task, ClassifyConfig | TagConfig):
        return None
    if task.labels is None:
        raise ValueError("the labels must be resolved before a model is counted")
    if isinstance(task, TagConfig):
        return _Labels(len(task.labels), per_token=True)
    return _Labels(len(task.labels), per_token=False)


def _count_gpt(config: GPTConfig, vocab: int, labels: _Labels | None) -> ModelCount:
    layers, width, hidden = config.n_layers, config.d_model, config.d_feed_forward
    attention = 4 * width * width  # query, key, value, output
    feed_forward = 2 * width * hidden
    biases = (4 * width + hidden + width) if config.bias else 0
    norm = 2 * width if config.bias else width
    embedding = vocab * width + config.context * width
    head = labels.params(width) if labels else 0 if config.tie_embeddings else vocab * width
    total = embedding + layers * (attention + feed_forward + biases + 2 * norm) + norm + head
    return ModelCount(
        n_params=total,
        n_params_active=total,
        n_params_embedding=embedding,
        n_params_matmul=layers * (attention + feed_forward) + (width * labels.count if labels else vocab * width),
        parts={
            "attention_projections": 6 * layers * attention,
            "attention_scores": 12 * layers * width * config.context,
            "feed_forward": 6 * layers * feed_forward,
            "head": labels.flops(width, config.context) if labels else 6 * vocab * width,
        },
    )


def _count_llama(config: LlamaSection, vocab: int, labels: _Labels | None) -> ModelCount:
    layers, width = config.n_layers, config.d_model
    queries, keys = config.n_heads * config.d_head, config.kv_heads * config.d_head
    attention = 2 * width * queries + 2 * width * keys
    expert = 3 * width * config.d_feed_forward  # gate, up, down
    router, used, held = 0, expert, expert
    if isinstance(config, MoEConfig):
        router = width * config.n_experts
        used = (config.experts_per_token + config.n_shared_experts) * expert
        held = (config.n_experts + config.n_shared_experts) * expert
    norms = 2 * width + (2 * config.d_head if config.qk_norm else 0)
    embedding = vocab * width
    head = labels.params(width) if labels else 0 if config.tie_embeddings else vocab * width
    total = embedding + layers * (attention + router + held + norms) + width + head
    parts: dict[str, float] = {
        "attention_projections": 6 * layers * attention,
        "attention_scores": 12 * layers * queries * config.attention_span,
        "feed_forward": 6 * layers * used,
        "head": labels.flops(width, config.context) if labels else 6 * vocab * width,
    }
    if router:
        parts["router"] = 6 * layers * router
    return ModelCount(
        n_params=total,
        n_params_active=total - layers * (held - used),
        n_params_embedding=embedding,
        n_params_matmul=layers * (attention + router + used) + (width * labels.count if labels else vocab * width),
        parts=parts,
    )


def _count_bert(config: BertConfig, vocab: int, labels: _Labels | None) -> ModelCount:
    layers, width, hidden = config.n_layers, config.d_model, config.d_feed_forward
    attention, feed_forward, norm = 4 * width * width, 2 * width * hidden, 2 * width
    embedding = (vocab + config.context) * width
    # A transform and its norm, and a bias for every token, before and after the tied table.
    head = labels.params(width) if labels else width * width + width + norm + vocab
    each = attention + 4 * width + feed_forward + hidden + width + 2 * norm
    total = embedding + norm + layers * each + head
    parts: dict[str, float] = {
        "attention_projections": 6 * layers * attention,
        "attention_scores": 12 * layers * width * config.context,
        "feed_forward": 6 * layers * feed_forward,
    }
    if labels:
        parts["head"] = labels.flops(width, config.context)
    else:
        parts |= {"head_transform": 6 * width * width, "head": 6 * vocab * width}
    return ModelCount(
        n_params=total,
        n_params_active=total,
        n_params_embedding=embedding,
        n_params_matmul=layers * (attention + feed_forward)
        + (width * labels.count if labels else width * width + vocab * width),
        parts=parts,
        is_causal=False,
    )


def _count_encdec(config: EncDecConfig, vocab: int, labels: _Labels | None) -> ModelCount:
    if config.input_vocab_size is None:
        raise ValueError("the source's vocabulary must be resolved before a model is counted")
    if labels:
        raise ValueError("an encoder-decoder predicts tokens, not labels")
    layers, width, hidden = config.n_layers, config.d_model, config.d_feed_forward
    source, target = config.source_context, config.context
    attention, feed_forward, norm = 4 * width * width, 2 * width * hidden, 2 * width
    biases = 4 * width
    each = feed_forward + hidden + width
    encoder = attention + biases + each + 2 * norm
    decoder = 2 * (attention + biases) + each + 3 * norm
    embedding = vocab * width + (0 if config.share_embeddings else config.input_vocab_size * width)
    if config.positions == "learned":
        embedding += (source + target) * width
    total = embedding + layers * (encoder + decoder) + (2 * norm if config.pre_norm else 0)
    total += 0 if config.tie_embeddings else vocab * width
    sequence: dict[str, float] = {  # training FLOPs of one pair
        "encoder_projections": 6 * layers * attention * source,
        "encoder_scores": 12 * layers * width * source * source,
        "encoder_feed_forward": 6 * layers * feed_forward * source,
        "attention_projections": 6 * layers * attention * target,
        "attention_scores": 12 * layers * width * target * target,
        "cross_projections": 6 * layers * 2 * width * width * (source + target),
        "cross_scores": 12 * layers * width * source * target,
        "feed_forward": 6 * layers * feed_forward * target,
        "head": 6 * vocab * width * target,
    }
    return ModelCount(
        n_params=total,
        n_params_active=total,
        n_params_embedding=embedding,
        n_params_matmul=layers * (3 * attention + 2 * feed_forward) + vocab * width,
        parts={name: whole(flops / config.sequence_tokens) for name, flops in sequence.items()},
    )


def _count_lstm(config: LSTMConfig, vocab: int, labels: _Labels | None) -> ModelCount:
    layers, width, embedded = config.n_layers, config.d_model, config.embedding_width
    matrices = 4 * width * (embedded + width) + (layers - 1) * 4 * width * 2 * width
    embedding = vocab * embedded
    projection = 0
    if labels:
        head, head_matmul = labels.params(width), width * labels.count
    else:
        projection = width * embedded if config.tie_embeddings and embedded != width else 0
        head_matmul = vocab * (embedded if config.tie_embeddings else width)
        head = projection + (0 if config.tie_embeddings else head_matmul)
    total = embedding + matrices + layers * 8 * width + head  # two biases a gate
    # No gradient goes into the empty state that a sequence starts from: one product of 2 * 4 C C less in each layer.
    unneeded = layers * 8 * width * width / config.context
    parts: dict[str, float] = {
        "recurrence": whole(6 * matrices - unneeded),
        "head": labels.flops(width, config.context) if labels else 6 * head_matmul,
    }
    if projection:
        parts["head_transform"] = 6 * projection
    return ModelCount(
        n_params=total,
        n_params_active=total,
        n_params_embedding=embedding,
        n_params_matmul=matrices + projection + head_matmul,
        parts=parts,
    )


def _count_hf(config: HFConfig, task: TaskConfig | None) -> ModelCount:
    size, labels = config.size, _labels(task)
    if size is None or config.d_model is None:
        raise ValueError("a model of transformers must be measured before it is counted (cost/hf.py)")
    n_params, active, matmul, parts = size.n_params, size.n_params_active, size.n_params_matmul, dict(size.parts)
    if labels:
        if config.predicts == "seq2seq":
            raise ValueError("an encoder-decoder predicts tokens, not labels")
        changed = labels.params(config.d_model) - size.n_params_head
        matmul += config.d_model * labels.count - int(sum(parts.pop(name, 0) for name in HEAD)) // 6
        n_params, active = n_params + changed, active + changed
        parts["head"] = labels.flops(config.d_model, config.context)
    return ModelCount(
        n_params=n_params,
        n_params_active=active,
        n_params_embedding=size.n_params_embedding,
        n_params_matmul=matmul,
        parts=parts,
        is_causal=config.predicts != "masked",
    )
