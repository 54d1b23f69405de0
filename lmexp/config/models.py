"""Model configs: one class a family, told apart by `_target_`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lmexp.config.base import Count, Positive, Section

Reads = Literal["left_to_right", "both_ways", "source_to_target"]
"""What a position of a model's output may depend on: the tokens up to it; all tokens; a source text, and the
target's tokens up to it."""
Dropout = Annotated[float, Field(ge=0, lt=1)]


class ModelSection(Section):
    """What every family has."""

    name: str
    """The size's name, as in tables."""
    n_layers: Count
    d_model: Count
    """Width of the residual stream; of an LSTM, of its state."""
    context: Count
    """Longest sequence, in tokens; also the length of the training sequences."""
    vocab_size: Count | None = None
    """Rows of the embedding; null means the tokenizer's."""
    dropout: Dropout = 0.0

    @property
    def reads(self) -> Reads:
        """What a position of the output may depend on."""
        return "left_to_right"

    @property
    def sequence_tokens(self) -> int:
        """Positions that one training sequence takes, padding included: of both stacks where there are two."""
        return self.context


class TransformerSection(ModelSection):
    """What every Transformer has."""

    n_heads: Count
    """Attention heads; must divide d_model."""
    d_ff: Count | None = None
    """Width of the feed-forward layer; null means the family's usual multiple of d_model."""

    @property
    def d_feed_forward(self) -> int:
        """Width of the feed-forward layer, resolved."""
        return self.d_ff or 4 * self.d_model


class GPTConfig(TransformerSection):
    """Decoder-only Transformer after GPT-2 (Radford et al. 2019): learned positions, pre-norm, GELU."""

    target: Literal["lmexp.models.gpt.GPT"] = Field(alias="_target_")
    family: Literal["gpt"] = "gpt"
    bias: bool = True
    """Whether linear layers and norms have biases."""
    tie_embeddings: bool = True
    """Whether the output head shares the token embedding's weights."""


class LlamaSection(TransformerSection):
    """What Llama and the mixture of experts share."""

    n_kv_heads: Count | None = None
    """Heads of keys and values, each read by n_heads / n_kv_heads queries (Ainslie et al. 2023); null: n_heads."""
    head_size: Count | None = None
    """Width of a head; null means d_model / n_heads."""
    rope_theta: Positive = 10_000.0
    """Base of the rotary positions' wavelengths (Su et al. 2021)."""
    norm_eps: Positive = 1e-5
    qk_norm: bool = False
    """Whether queries and keys of each head are normalised (Dehghani et al. 2023)."""
    window: Count | None = None
    """How many positions, its own included, a position sees; null means all before it."""
    tie_embeddings: bool = False

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, resolved."""
        return self.n_kv_heads or self.n_heads

    @property
    def d_head(self) -> int:
        """Width of a head, resolved."""
        return self.head_size or self.d_model // self.n_heads

    @property
    def d_feed_forward(self) -> int:
        """Two thirds of 4 d_model, for SwiGLU has three matrices (Shazeer 2020), in whole multiples of 32."""
        return self.d_ff or -(-8 * self.d_model // 96) * 32

    @property
    def attention_span(self) -> int:
        """The most positions that one sees."""
        return min(self.window or self.context, self.context)


class LlamaConfig(LlamaSection):
    """Decoder-only Transformer after Llama (Touvron et al. 2023): rotary positions, RMSNorm, SwiGLU, no biases."""

    target: Literal["lmexp.models.llama.Llama"] = Field(alias="_target_")
    family: Literal["llama"] = "llama"


class MoEConfig(LlamaSection):
    """Llama with a mixture of experts in place of each feed-forward layer (Shazeer et al. 2017, Jiang et al. 2024).

    `d_ff` is the width of one expert.
    """

    target: Literal["lmexp.models.moe.MoE"] = Field(alias="_target_")
    family: Literal["moe"] = "moe"
    n_experts: Count
    """Experts that a token is routed among, in each layer."""
    experts_per_token: Count = 2
    """How many of them it goes through."""
    n_shared_experts: Annotated[int, Field(ge=0)] = 0
    """Experts of the same width that every token goes through besides (Dai et al. 2024)."""
    balance: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the loss that keeps experts evenly used (Fedus et al. 2021, equations 4 to 6)."""


class BertConfig(TransformerSection):
    """Encoder after BERT (Devlin et al. 2018): learned positions, post-norm, GELU, tied head with a transform."""

    target: Literal["lmexp.models.bert.Bert"] = Field(alias="_target_")
    family: Literal["bert"] = "bert"
    dropout: Dropout = 0.1
    norm_eps: Positive = 1e-12

    @property
    def reads(self) -> Reads:
        """Every position sees all of them."""
        return "both_ways"


class EncDecConfig(TransformerSection):
    """Encoder and decoder, the Transformer of Vaswani et al. 2017; `n_layers` are those of each stack.

    In the paper's words: N, d_model, h, d_ff, P_drop. `vocab_size` and `context` are the target's.
    """

    target: Literal["lmexp.models.encdec.EncDec"] = Field(alias="_target_")
    family: Literal["encdec"] = "encdec"
    dropout: Dropout = 0.1
    input_vocab_size: Count | None = None
    """Rows of the source's embedding; null means its tokenizer's."""
    input_context: Count | None = None
    """Longest source, in tokens; null means context."""
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    pre_norm: bool = False
    """Whether norms come before each half of a block, with one after the last, and not after it as in the paper."""
    share_embeddings: bool = False
    """Whether source and target share one table; they need one tokenizer then."""
    tie_embeddings: bool = True
    """Whether the output head shares the target's table (section 3.4 of the paper)."""

    @property
    def reads(self) -> Reads:
        """The decoder sees the whole source."""
        return "source_to_target"

    @property
    def source_context(self) -> int:
        """Longest source, resolved."""
        return self.input_context or self.context

    @property
    def sequence_tokens(self) -> int:
        """A source and a target."""
        return self.source_context + self.context


class LSTMConfig(ModelSection):
    """Stacked LSTM (Hochreiter and Schmidhuber 1997), with the dropouts of Zaremba et al. 2014.

    `dropout` lies between layers. `context` is the length over which gradients flow; each sequence starts from
    an empty state.
    """

    target: Literal["lmexp.models.lstm.LSTM"] = Field(alias="_target_")
    family: Literal["lstm"] = "lstm"
    n_heads: None = None
    d_embedding: Count | None = None
    """Width of the embedding; null means d_model."""
    dropout_embedding: Dropout = 0.0
    """On what goes into the first layer."""
    dropout_output: Dropout = 0.0
    """On what goes into the head."""
    tie_embeddings: bool = True
    """Whether the head shares the embedding's weights (Press and Wolf 2017), by a projection where widths differ."""

    @property
    def embedding_width(self) -> int:
        """Width of the embedding, resolved."""
        return self.d_embedding or self.d_model


class HFSize(Section):
    """What a model of the transformers library holds and costs, as counted when its config is resolved."""

    n_params: Count
    """Trainable parameters; tied ones count once."""
    n_params_active: Count
    """Parameters that one token uses."""
    n_params_embedding: Count
    """Tables that are looked up."""
    n_params_matmul: Count
    """Parameters that multiply each token, output head included; of experts, the active ones. Those that layers share,
    as in ALBERT, count as often as they multiply: six FLOPs each and the scores of attention are the sum of `parts`.
    Of a seq2seq architecture, whose stacks have their own tokens, each counts once."""
    n_params_head: Annotated[int, Field(ge=0)]
    """Parameters that only the head over the vocabulary has: what another head takes the place of."""
    parts: dict[str, float]
    """Training FLOPs per token, by named part, at sequences of the full context."""


class HFConfig(Section):
    """A model of the transformers library: of one of its architectures with fresh weights, or a pretrained one."""

    target: Literal["lmexp.models.hf.HFModel"] = Field(alias="_target_")
    family: Literal["hf"] = "hf"
    name: str
    predicts: Literal["causal", "masked", "seq2seq"]
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
    context: Count
    """Longest sequence, in tokens; of a seq2seq model, of source and target each."""
    n_layers: Count | None = None
    """This and what follows is filled in when the config is resolved."""
    d_model: Count | None = None
    n_heads: Count | None = None
    vocab_size: Count | None = None
    size: HFSize | None = None

    @property
    def reads(self) -> Reads:
        """By its head."""
        known: dict[str, Reads] = {
            "causal": "left_to_right",
            "masked": "both_ways",
            "seq2seq": "source_to_target",
        }
        return known[self.predicts]

    @property
    def sequence_tokens(self) -> int:
        """The context, twice where there are two stacks."""
        return self.context * (2 if self.predicts == "seq2seq" else 1)


ModelConfig = Annotated[
    GPTConfig | LlamaConfig | MoEConfig | BertConfig | EncDecConfig | LSTMConfig | HFConfig,
    Field(discriminator="target"),
]
