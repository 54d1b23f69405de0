"""What the transformers library makes of an HFConfig: its own config, and the models that it has for it.

The library is imported when it is asked for, and kept quiet: what it has to say to a user is said here, as UserErrors.
No code that comes with a model runs, unless the config says so in so many words.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp.config.models.hf import HFConfig
from lmexp.errors import UserError, nearest, reason_of
from lmexp.files import user_path

if TYPE_CHECKING:
    from transformers import PretrainedConfig

HEADS = {
    "causal": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    "masked": ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    "seq2seq": ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
}
"""The library's class for each head, and its table of the architectures that have it."""
_OLD_KEYS = ("rope_theta", "rope_scaling")
"""Keys that it still reads, though no config has them any more."""
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_OF_THE_FILE = ("architectures", "auto_map", "dtype", "id2label", "label2id", "transformers_version", "_name_or_path")
"""What a published config says besides its model's shape."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, reports and progress bars of the library, and of what it imports, out of logs.

    From here on it logs nothing but errors, for its models warn in their forward passes too.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import huggingface_hub.utils
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        huggingface_hub.utils.disable_progress_bars()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def folder_of(config: HFConfig) -> Path | None:
    """Return the folder of a pretrained model; None for one on the hub.

    Raises UserError where only a folder can be meant, and there is none.
    """
    assert config.pretrained is not None
    folder = user_path(config.pretrained)
    if folder.is_dir():
        return folder
    if config.pretrained.startswith((".", "/", "~")) or config.pretrained.count("/") > 1:
        raise UserError(f"model.pretrained={config.pretrained}: no such folder")
    return None


def place_of(config: HFConfig) -> dict[str, Any]:
    """Return where the library finds a pretrained model: its folder, or the hub's commit that was resolved."""
    folder = folder_of(config)
    if folder is not None:
        return {"pretrained_model_name_or_path": str(folder)}
    return {"pretrained_model_name_or_path": config.pretrained, "revision": config.fingerprint or config.revision}


def library_config(config: HFConfig) -> "PretrainedConfig":
    """Return the library's own config: an architecture's defaults, or a pretrained model's, with what ours changes.

    Raises UserError for an architecture that is not known or has no such head, for keys that it does not have, for a
    context that it has no positions for, and for a model that needs code of its own that may not run.
    """
    with quiet():
        import transformers
        from transformers.models.auto import modeling_auto

        if config.pretrained is not None and not _is_library_shape(config):
            theirs = _of_pretrained(config)
        elif config.model_type is not None:
            theirs = _of_architecture(config, config.model_type)
        else:
            raise UserError(
                "family hf needs model.model_type (an architecture, with fresh weights) or model.pretrained "
                "(a folder, or a name on the hub)"
            )
    known = getattr(modeling_auto, HEADS[config.predicts][1])
    if theirs.model_type not in known and not config.trust_remote_code:
        raise UserError(
            f"model.predicts={config.predicts}: transformers {transformers.__version__} has no such head for "
            f"{theirs.model_type}"
        )
    vocab = theirs.get_text_config().vocab_size
    if config.vocab_size not in (None, vocab):
        raise UserError(f"model.vocab_size={config.vocab_size}, and the model's own vocabulary has {vocab} tokens")
    positions = positions_of(theirs)
    if positions is not None and positions < config.context:
        raise UserError(
            f"model.context={config.context} is more than the {positions} positions of this {theirs.model_type} "
            f"(max_position_embeddings of its config); set model.context={positions} or less"
        )
    return theirs


def positions_of(theirs: "PretrainedConfig") -> int | None:
    """Return how many positions a library's config names; None if it sets no limit."""
    for key in ("max_position_embeddings", "max_seq_len"):  # the second is MPT's
        positions = getattr(theirs.get_text_config(), key, None)
        if isinstance(positions, int) and positions > 0:
            return positions
    return None


def check_looks_back(config: HFConfig, model: Any) -> None:
    """Raise UserError for a causal model whose attention is not: of some encoders the library makes such ones."""
    attention = {layer.is_causal for layer in model.modules() if hasattr(layer, "is_causal")}
    if config.predicts == "causal" and attention == {False}:
        raise looks_ahead(model.config.model_type)


def looks_ahead(model_type: str) -> UserError:
    """Return what is said of a model that sees what it is to predict."""
    return UserError(
        f"model.predicts=causal: this {model_type} would see the tokens that it predicts. For an encoder, "
        "model.config.is_decoder=true makes it causal, and model.predicts=masked takes it as it is"
    )


def first_position(model: Any) -> int | None:
    """Return the number of a sequence's first position where the library tells positions by the padding; or None.

    RoBERTa and its kind number the tokens that are not the padding token, from that token's id + 1 on. So positions
    have to be given: in a fresh model, the padding token is a token like others.
    """
    for module in model.modules():
        if getattr(module, "position_embeddings", None) is not None and hasattr(module, "padding_idx"):
            return 0 if module.padding_idx is None else int(module.padding_idx) + 1
    return None


def check_positions(config: HFConfig, model: Any) -> None:
    """Raise UserError for a context longer than the positions that are left of those of the config."""
    first, text = first_position(model), model.config.get_text_config()
    if first and config.context > text.max_position_embeddings - first:
        raise UserError(
            f"model.context={config.context} is more than the {text.max_position_embeddings - first} positions of this "
            f"{text.model_type}: max_position_embeddings of its config, less {first} before the first"
        )


def attention_spans(config: HFConfig, theirs: "PretrainedConfig") -> list[int]:
    """Return how many positions one sees at most, layer by layer, at sequences of the full context.

    That is the context but where a window slides along, or chunks are read apart.
    """
    text, length = theirs.get_text_config(), config.context
    window = getattr(text, "sliding_window", None)
    if window and config.predicts == "masked":
        window = 2 * window + 1  # so many to either side, and itself
    spans = {
        "sliding_attention": window,
        "chunked_attention": getattr(text, "attention_chunk_size", None),
        "local": getattr(text, "window_size", None),  # GPT-Neo's
    }
    kinds = getattr(text, "layer_types", None) or getattr(text, "attention_layers", None)
    if not kinds:  # one kind is for all
        kinds = ["sliding_attention"] * (getattr(text, "num_hidden_layers", None) or 0)
    return [min(spans.get(kind) or length, length) for kind in kinds]


def state_width(theirs: "PretrainedConfig") -> int:
    """Return the width of what the head reads; a few architectures narrow it before."""
    text = theirs.get_text_config()
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)


def published_settings(config: HFConfig) -> dict[str, Any]:
    """Return what a pretrained model's config.json says. Raises UserError when it cannot be read."""
    from transformers import PretrainedConfig

    try:
        published: dict[str, Any] = PretrainedConfig.get_config_dict(**place_of(config))[0]
    except Exception as error:  # the library's many ways to fail: each is one message here
        raise UserError(f"cannot read the config of {config.pretrained}: {_reason(error)}") from error
    return published


def special_tokens(config: HFConfig) -> tuple[int, int]:
    """Return the tokens that start and end the targets of a pretrained seq2seq model. Raises UserError."""
    theirs = library_config(config.without_weights())
    # Not every architecture's config has all of these.
    start, begins, end = (getattr(theirs, f"{key}_token_id", None) for key in ("decoder_start", "bos", "eos"))
    start = begins if start is None else start
    if not isinstance(start, int) or not isinstance(end, int):
        lacking = "decoder_start_token_id" if not isinstance(start, int) else "eos_token_id"
        raise UserError(f"{config.pretrained or config.name}: its config lacks {lacking}, which targets need")
    return start, end


def settled_config(config: HFConfig) -> dict[str, Any]:
    """Return all that makes the model's shape, by the library's names: with `model_type`, enough to build it again."""
    whole = json.loads(json.dumps(library_config(config).to_diff_dict()))
    return {key: value for key, value in sorted(whole.items()) if key not in (*_OF_THE_FILE, "model_type")}


def _is_library_shape(config: HFConfig) -> bool:
    """Return whether a model that needs no weights can do without its folder, which is gone, and the code in it."""
    from transformers import CONFIG_MAPPING

    if not config.draws_weights or config.model_type not in CONFIG_MAPPING or config.pretrained is None:
        return False
    is_place = config.pretrained.startswith((".", "/", "~")) or config.pretrained.count("/") > 1
    return is_place and not user_path(config.pretrained).is_dir()


def _of_architecture(config: HFConfig, model_type: str) -> "PretrainedConfig":
    from transformers import CONFIG_MAPPING, AutoConfig

    if model_type not in CONFIG_MAPPING:
        raise UserError(
            f"model.model_type={model_type} is no architecture of transformers.{nearest(model_type, CONFIG_MAPPING)}"
        )
    given = dict(config.config)
    if config.vocab_size is not None:
        given.setdefault("vocab_size", config.vocab_size)
    _check_kernels(config, given)
    try:
        plain = AutoConfig.for_model(model_type)
        if config.fingerprint is None:  # else they are a published config's, which often has keys that nothing reads
            _check_keys(config, plain)
        # Special tokens of the architecture's own tokenizer, which may lie outside of ours.
        vocab = given.get("vocab_size", plain.get_text_config().vocab_size)
        for key, token in plain.to_dict().items():
            if key in _SPECIAL and isinstance(token, int) and token >= vocab:
                given.setdefault(key, None)
        return AutoConfig.for_model(model_type, **given)
    except UserError:
        raise
    except Exception as error:  # each architecture checks in its own way
        raise UserError(f"model.config does not make a {model_type}: {_reason(error)}") from error


def _of_pretrained(config: HFConfig) -> "PretrainedConfig":
    from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

    place = place_of(config)
    folder = folder_of(config)
    if folder is not None and not (folder / "config.json").is_file():
        raise UserError(f"model.pretrained={config.pretrained}: the folder has no config.json")
    try:
        published, _ = PretrainedConfig.get_config_dict(**place)
        model_type, code = published.get("model_type"), published.get("auto_map") or {}
        if model_type not in CONFIG_MAPPING and not config.trust_remote_code:
            if code:
                runs = ", ".join(sorted({_file_of(entry) for entry in code.values()}))
                raise UserError(
                    f"{config.pretrained} needs code that comes with it: {runs}. model.trust_remote_code=true runs "
                    "it, and it can do anything that you can"
                )
            raise UserError(f"{config.pretrained}: transformers knows no architecture '{model_type}'")
        if config.model_type not in (None, model_type):
            raise UserError(f"model.model_type={config.model_type}, and {config.pretrained} is a {model_type}")
        _check_kernels(config, published | config.config)
        theirs = AutoConfig.from_pretrained(**place, trust_remote_code=config.trust_remote_code)
        _check_keys(config, theirs)
        return AutoConfig.from_pretrained(**place, trust_remote_code=config.trust_remote_code, **config.config)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot read the config of {config.pretrained}: {_reason(error)}") from error


def _file_of(entry: Any) -> str:
    """Return the file that an entry of auto_map names: `[repository--]module.Class`."""
    module = str(entry[0] if isinstance(entry, list) else entry).rsplit(".", 1)[0]
    repository, _, file = module.rpartition("--")
    return f"{file}.py of {repository}" if repository else f"{file}.py"


def _check_kernels(config: HFConfig, values: Any, key: str = "") -> None:
    """Raise UserError for a kernel of the hub, which is code too; sections are looked into."""
    if isinstance(values, dict):
        for inner, value in values.items():
            _check_kernels(config, value, inner if "_implementation" not in key else key)
    elif "_implementation" in key and "/" in str(values) and not config.trust_remote_code:
        raise UserError(
            f"{config.pretrained or 'model.config'} asks for code of the hub: {key}={values}. "
            "model.trust_remote_code=true runs it, and it can do anything that you can"
        )


def _check_keys(config: HFConfig, theirs: "PretrainedConfig") -> None:
    """Raise UserError for a key that the library would take without a word, and never read."""
    known = [*theirs.to_dict(), *theirs.attribute_map, *_OLD_KEYS]
    for key in config.config:
        if key not in known:
            raise UserError(f"model.config.{key}: {theirs.model_type} has no such key.{nearest(key, known)}")


def _reason(error: Exception) -> str:
    """Return an error's reason in one line; the library's checks say it in the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else reason_of(error)
