"""The model to use: that of a finished run, by its name, or a pretrained one of Hugging Face as `hf:NAME`."""

from collections.abc import Callable
from pathlib import Path

from lmexp.config import paths
from lmexp.config.compose import Composer, allow_code
from lmexp.config.hf import published_settings, quiet
from lmexp.config.models.hf import HFConfig
from lmexp.config.outside import warn_of_changes
from lmexp.config.overrides import quoted
from lmexp.config.schema import RunConfig
from lmexp.cost import hf
from lmexp.cost.device import Device, detect
from lmexp.data.tokenizers.build import build_tokenizer
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.models.hf import HFModel, HFSeq2Seq
from lmexp.resolve.inputs import InputResolver
from lmexp.runs.directory import STORES
from lmexp.runs.find import find_run
from lmexp.train.checkpoint import Loaded, load_final

PREFIX = "hf:"
MAX_CONTEXT = 1024
"""Context of a pretrained model in tokens, unless it has fewer positions or the user sets another."""
TASKS: dict[str, str] = {"causal": "causal_lm", "masked": "masked_lm", "seq2seq": "seq2seq"}


def load_subject(
    name: str,
    outputs: Path,
    config_dir: Path | None = None,
    predicts: str | None = None,
    words: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Loaded:
    """Return a finished run, or the pretrained model that `hf:FOLDER` or `hf:NAME` stands for, with its tokenizer.

    The model is on the device that it will be used on; see device_for.

    Args:
        name: a run as find_run knows it, or `hf:` and a folder or a name on the hub.
        predicts: which head the pretrained model has [default: that of its published config].
        words: further overrides of a pretrained model's config, as in `model.context=512`.

    Raises UserError.
    """
    allow_code(list(words), config_dir)
    if not name.startswith(PREFIX):
        loaded = load_final(find_run(name, outputs, is_finished=True))
        warn_of_changes(loaded.config, name, say)
        loaded.model.to(device_for(loaded.config).kind)
        return loaded
    config = pretrained_config(name.removeprefix(PREFIX), config_dir, predicts, words)
    resolver = InputResolver(outputs / STORES, say)
    config = resolver.identified(config)
    tokenizer = build_tokenizer(config.tokenizer, ())
    rows = config.model.vocab_size or 0
    if tokenizer.vocab_size > rows:
        raise UserError(f"{name}: the tokenizer has {tokenizer.vocab_size} entries, and the model {rows}")
    model = build_model(config.model, config.seed, config.task).eval().to(device_for(config).kind)
    if isinstance(model, HFModel | HFSeq2Seq) and model.drawn:
        raise UserError(
            f"{name} has no weights for its head over the vocabulary, such as {model.drawn[0]}, so it cannot predict "
            "yet: train it first, with model=hf_pretrained"
        )
    return Loaded(config, model, tokenizer, tokenizer)


def end_ids(loaded: Loaded) -> frozenset[int]:
    """Return the tokens that end a document: the tokenizer's, and those that a pretrained model's config names."""
    config, model = loaded.config.model, loaded.model
    if not isinstance(config, HFConfig) or config.fingerprint is None or not isinstance(model, HFModel):
        return loaded.tokenizer.end_ids
    named = getattr(model.model.generation_config, "eos_token_id", None)
    return loaded.tokenizer.end_ids | frozenset([] if named is None else [named] if isinstance(named, int) else named)


def device_for(config: RunConfig) -> Device:
    """Return the device to use a model on: the best of this machine, or the CPU if the config asks for it."""
    return detect("cpu" if config.trainer.accelerator == "cpu" else "auto")


def pretrained_config(
    name: str, config_dir: Path | None, predicts: str | None, words: tuple[str, ...] = ()
) -> RunConfig:
    """Return the config of a pretrained model, by its folder or its name on the hub. Raises UserError."""
    if predicts is not None and predicts not in TASKS:
        raise UserError(f"--predicts {predicts}: expected one of {', '.join(TASKS)}")
    plain = HFConfig(target="lmexp.models.hf.HFModel", name="hf", predicts="causal", pretrained=name, context=1)
    hf.fingerprint(plain)  # says in one line what is wrong with the name, or with its weights
    with quiet():
        known = published_settings(plain)
    predicts = predicts or _head(name, known)
    chosen = [
        "model=hf_pretrained",
        f"model.pretrained={quoted(name)}",
        f"model.predicts={predicts}",
        "model.context=1",  # until more is known
        "tokenizer=hf",
        f"tokenizer.name={quoted(name)}",
        f"task={TASKS[predicts]}",
    ]
    roots = paths.search_roots(config_dir)
    config = Composer(roots, words=[*chosen, *words]).config({})
    assert isinstance(config.model, HFConfig)
    if config.model.context != 1:
        return config
    positions = hf.usable_positions(config.model) or known.get("n_positions") or MAX_CONTEXT
    return Composer(roots, words=[*chosen, f"model.context={min(int(positions), MAX_CONTEXT)}", *words]).config({})


def _head(name: str, settings: dict[str, object]) -> str:
    """Return which head the model of a published config has. Raises UserError for one that is not over a vocabulary."""
    named = settings.get("architectures")
    architectures = " ".join(map(str, named)) if isinstance(named, list) else ""
    if architectures.endswith(("Classification", "QuestionAnswering", "MultipleChoice")):
        raise UserError(f"{name} holds a {architectures}, which has no head over a vocabulary: it predicts no tokens")
    if settings.get("is_encoder_decoder"):
        return "seq2seq"
    return "masked" if "MaskedLM" in architectures or "ForPreTraining" in architectures else "causal"
