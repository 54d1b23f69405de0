"""Models of the transformers library: any of its causal, masked and seq2seq architectures, fresh or pretrained.

Notable choices: weights in float32, whatever they were published in, and from safetensors, never from pickles. The
library's forward pass is the model's: what is done here is to call it by this package's names. A fresh model's
special tokens mean nothing, for the tokenizer is another one: none of them is left out of training.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmexp.config.hf import (
    HEADS,
    check_looks_back,
    check_positions,
    first_position,
    folder_of,
    library_config,
    looks_ahead,
    place_of,
    quiet,
    state_width,
)
from lmexp.config.models.hf import HFConfig
from lmexp.errors import UserError, reason_of
from lmexp.files import visible_files
from lmexp.hub import lacking_weights
from lmexp.models.base import Cache, LanguageModel, find_layers
from lmexp.models.finite import check_finite


class HFCache:
    """What one layer keeps of the tokens seen so far, as the library keeps it: it grows as they come."""

    def __init__(self, whole: Any, index: int) -> None:
        """`whole` is the library's cache of all layers."""
        self.whole, self.index = whole, index
        self.length = 0
        """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the layer."""
        return _tensor_bytes(vars(self.whole.layers[self.index]))


class HFModel(LanguageModel):
    """A causal or masked language model of the library; of a seq2seq architecture there is HFSeq2Seq.

    Fresh weights are drawn from torch's global generator: seed it for a model that can be made again.
    """

    config: HFConfig

    def __init__(self, config: HFConfig) -> None:
        """Raises UserError for what cannot be loaded, and for a causal model whose attention looks ahead."""
        loaded, drawn = load(config)  # first, since it knows the vocabulary of a config that is not resolved
        super().__init__(config, loaded.config.get_text_config().vocab_size)
        self.model = loaded
        self.drawn: list[str] = drawn
        """Weights that the folder of a pretrained model lacks: they are drawn at random."""
        if self.body is self.model:
            raise UserError(f"{config.name}: its body cannot be told from its head")
        self.numbered_from = first_position(self.model)
        """The number of a sequence's first position, where the library has to be given it; see first_position."""

    @property
    def body(self) -> Any:
        """The library's model without the head."""
        return self.model.base_model

    def hidden(self, tokens: Tensor, cache: Sequence[Cache] | None = None, valid: Tensor | None = None) -> Tensor:
        """See LanguageModel.hidden."""
        states: Tensor = self.body(**self._inputs(tokens, cache, valid)).last_hidden_state
        _advance(cache, tokens.shape[1])
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """See LanguageModel.logits.

        An architecture's forward pass holds more than the head's modules, such as scales and caps. So it runs whole,
        with these states in place of what the body would give.
        """
        states, given = hidden.reshape(1, -1, hidden.shape[-1]), []
        tokens = torch.zeros(states.shape[:2], dtype=torch.int64, device=states.device)

        def give(*ignored: Any, **also: Any) -> _States:
            given.append(states)
            return _States(states)

        # A few architectures call the stack inside of their body.
        bodies = [self.body, *(part for name, part in self.body.named_children() if name == "decoder")]
        for body in bodies:
            body.forward = give
        try:
            logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        finally:
            for body in bodies:
                del body.forward
        if not given:
            raise ValueError(f"{self.config.name}: its head cannot be told from its body")
        return logits.view(*hidden.shape[:-1], -1)

    def forward(
        self,
        tokens: Tensor,
        cache: Sequence[Cache] | None = None,
        last_only: bool = False,
        valid: Tensor | None = None,
        documents: Tensor | None = None,
        features_only: bool = False,
    ) -> Tensor:
        """See LanguageModel.forward. Raises ValueError for documents, which the library's models do not keep apart."""
        if documents is not None:
            raise ValueError(f"{self.config.name} cannot keep documents apart")
        if features_only:
            return self.features(self.hidden(tokens, cache, valid))
        inputs = self._inputs(tokens, cache, valid)
        if last_only and "logits_to_keep" in _arguments(self.model):
            inputs["logits_to_keep"] = 1
        logits: Tensor = self.model(**inputs).logits
        _advance(cache, tokens.shape[1])
        return logits[:, -1:] if last_only else logits

    def _inputs(self, tokens: Tensor, cache: Sequence[Cache] | None, valid: Tensor | None) -> dict[str, Any]:
        """Return what the library's forward pass takes."""
        start = self.first_position(tokens, cache)
        end = start + tokens.shape[1]
        inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": bool(cache)}
        inputs |= _positions(self.numbered_from, start, end, tokens.device)
        if cache:
            assert isinstance(cache[0], HFCache)
            inputs["past_key_values"] = cache[0].whole
        # Padding comes last: in a causal model no other position sees it, and the kernel is faster without a mask.
        if valid is not None and self.config.predicts == "masked":
            inputs["attention_mask"] = valid.long()
        return inputs

    @property
    def width(self) -> int:
        """See LanguageModel.width."""
        return state_width(self.model.config)

    def drop_head(self) -> None:
        """See LanguageModel.drop_head."""
        self.model = self.body

    def layers(self) -> Iterable[nn.Module]:
        """See LanguageModel.layers."""
        return find_layers(self.body)

    def new_cache(self, batch: int, capacity: int | None = None) -> list[HFCache]:
        """Return an empty cache, one entry a layer; the library's fits any `batch` and `capacity`.

        Raises UserError for a model that continues no text.
        """
        if self.config.predicts == "masked" or "past_key_values" not in _arguments(self.body):
            raise UserError(f"{self.config.name} keeps no keys and values to continue a text with")
        from transformers import DynamicCache

        whole = DynamicCache(config=self.model.config)
        return [HFCache(whole, index) for index in range(len(whole.layers))]


class HFSeq2Seq(nn.Module):
    """A model of the library that maps a source text and the target so far to logits over the target's next token.

    Shapes: B pairs, S source positions, T target positions. It is no LanguageModel, for it reads two sequences.
    """

    def __init__(self, config: HFConfig) -> None:
        """Raises UserError for what cannot be loaded."""
        super().__init__()
        self.config = config
        self.model, self.drawn = load(config)

    def encode(self, sources: Tensor, source_valid: Tensor | None = None) -> Tensor:
        """Read the sources: (B, S) int64 -> (B, S, C).

        `source_valid` is (B, S) bool, False where a token is padding; None: no padding. Raises ValueError for a
        source longer than the context.
        """
        self._check(sources.shape[1])
        memory: Tensor = self.model.get_encoder()(input_ids=sources, attention_mask=_mask(source_valid))[0]
        return memory

    def forward(self, sources: Tensor, source_valid: Tensor | None, inputs: Tensor) -> Tensor:
        """Return logits of the token after each of `inputs`: (B, S), (B, S), (B, T) -> (B, T, vocab_size).

        `inputs` are the targets, each behind the token that starts it. See `encode`.
        """
        self._check(max(sources.shape[1], inputs.shape[1]))
        mask = _mask(source_valid)
        logits: Tensor = self.model(
            input_ids=sources, attention_mask=mask, decoder_input_ids=inputs, use_cache=False
        ).logits
        return logits

    def new_state(self, sources: Tensor, source_valid: Tensor | None, capacity: int | None = None) -> "HFState":
        """Read the sources, to write targets behind them, any `capacity` of tokens; see `next_logits`."""
        from transformers import DynamicCache, EncoderDecoderCache

        whole = EncoderDecoderCache(DynamicCache(config=self.model.config), DynamicCache(config=self.model.config))
        return HFState(self.encode(sources, source_valid), _mask(source_valid), whole)

    def next_logits(self, inputs: Tensor, state: "HFState") -> Tensor:
        """Score the token that follows `inputs`, which follow those of the state: (B, T) int64 -> (B, vocab_size).

        Raises ValueError when they are more than the context.
        """
        from transformers.modeling_outputs import BaseModelOutput

        self._check(state.length + inputs.shape[1])
        logits: Tensor = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=state.memory),
            attention_mask=state.mask,
            decoder_input_ids=inputs,
            past_key_values=state.whole,
            use_cache=True,
        ).logits
        state.length += inputs.shape[1]
        return logits[:, -1]

    def _check(self, length: int) -> None:
        if length > self.config.context:
            raise ValueError(f"{length} tokens are more than the model's context of {self.config.context}")

    @property
    def width(self) -> int:
        """C, the width of the hidden states."""
        return state_width(self.model.config)

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers of both stacks, in order: what is gathered at a time where processes share the weights."""
        return find_layers(self.model)

    def auxiliary_loss(self) -> None:
        """See LanguageModel.auxiliary_loss: there is none."""
        return None


class HFState:
    """What a model keeps of sources it has read, and of targets it is writing: no token is read twice."""

    def __init__(self, memory: Tensor, mask: Tensor | None, whole: Any) -> None:
        """`memory` is (B, S, C), `mask` (B, S), `whole` the library's cache of both kinds of attention."""
        self.memory, self.mask, self.whole = memory, mask, whole
        self.length = 0
        """Target tokens read."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        caches = (self.whole.self_attention_cache, self.whole.cross_attention_cache)
        return self.memory.nbytes + sum(_tensor_bytes(vars(layer)) for cache in caches for layer in cache.layers)

    def select(self, rows: Tensor) -> None:
        """Keep these of the B sequences, in this order, some several times or not at all: (B',) int64."""
        self.memory = self.memory[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        self.whole.batch_select_indices(rows)


def load(config: HFConfig) -> tuple[Any, list[str]]:
    """Return the library's model, in float32 on the CPU, in training mode, and which weights of its head were lacking.

    Raises UserError where it cannot be had, where its weights are pickles or too few, and for a causal model that
    looks ahead.
    """
    theirs = library_config(config)
    with quiet():
        import transformers

        auto = getattr(transformers, HEADS[config.predicts][0])
        drawn: list[str] = []
        if config.pretrained is None or config.draws_weights:
            code = {"trust_remote_code": True} if config.trust_remote_code else {}
            model = auto.from_config(theirs, dtype=torch.float32, **code)
            for layer in model.modules():
                if isinstance(layer, nn.Embedding):
                    layer.padding_idx = None  # its gradient would be dropped
        else:
            model, drawn = _read(config, theirs, auto)
    check_positions(config, model)
    if config.predicts == "causal" and model.device.type != "meta":
        check_looks_back(config, model)
        _check_looks_back(model.eval())
    return model.train(), drawn


def _read(config: HFConfig, theirs: Any, auto: Any) -> tuple[Any, list[str]]:
    """Return a pretrained model, and the weights of its head that its folder lacks; all others must be there."""
    folder = folder_of(config)
    if folder is not None and not visible_files(folder, "*.safetensors"):
        raise lacking_weights(config.pretrained or "", [file.name for file in folder.iterdir()])
    try:
        model, report = auto.from_pretrained(
            **place_of(config),
            config=theirs,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=config.trust_remote_code,
            output_loading_info=True,
        )
    except Exception as error:  # the library's many ways to fail: each is one message here
        raise UserError(f"cannot load {config.pretrained}: {reason_of(error)}") from error
    check_finite(dict(model.named_parameters()), config.pretrained or "")
    missing = sorted(report["missing_keys"])
    if lost := [name for name in missing if not _is_of_head(name, model)]:
        raise UserError(f"{config.pretrained} has no weights for {lost[0]} and {len(lost) - 1} more")
    return model, missing


def _is_of_head(name: str, model: Any) -> bool:
    """Return whether a weight is of the head over the vocabulary."""
    if model.base_model is not model:
        return not name.startswith(f"{model.base_model_prefix}.")
    table = model.get_output_embeddings()  # a seq2seq model has no module that holds both stacks and no head
    return any(module is table and name.startswith(f"{place}.") for place, module in model.named_modules())


@torch.no_grad()
def _check_looks_back(model: Any) -> None:
    """Raise UserError where a later token changes an earlier logit: not every architecture says that it would."""
    one = torch.arange(4)[None] % 2  # tokens that every vocabulary has
    other = torch.tensor([[0, 1, 0, 0]])
    positions = _positions(first_position(model), 0, 4, one.device)
    first, second = (model(input_ids=tokens, use_cache=False, **positions).logits[:, :-1] for tokens in (one, other))
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-4 * float(first.abs().max())):
        raise looks_ahead(model.config.model_type)


class _States:
    """What a head reads of a body's output: hidden states, and None for all else."""

    def __init__(self, states: Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None


def _positions(first: int | None, start: int, end: int, device: torch.device) -> dict[str, Tensor]:
    """Return the argument for the positions from `start` to `end`, where they have to be given (see first_position)."""
    return {} if first is None else {"position_ids": torch.arange(first + start, first + end, device=device)[None]}


def _mask(valid: Tensor | None) -> Tensor | None:
    return None if valid is None else valid.long()


def _arguments(module: nn.Module) -> Iterable[str]:
    return inspect.signature(module.forward).parameters


def _advance(cache: Sequence[Cache] | None, tokens: int) -> None:
    for layer in cache or ():
        assert isinstance(layer, HFCache)
        layer.length += tokens


def _tensor_bytes(value: Any) -> int:
    """Return the bytes of the tensors in a value, however deep in lists and dictionaries."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        value = list(value.values())
    return sum(_tensor_bytes(each) for each in value) if isinstance(value, list | tuple) else 0
