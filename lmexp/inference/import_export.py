"""Export a finished run as a folder that the transformers library loads, and import such a folder as a finished run."""

import time
from pathlib import Path

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.identity import run_id, slug
from lmexp.config.outside import warn_of_changes
from lmexp.config.schema import InitConfig, RunConfig, RunInfo
from lmexp.config.tasks.base import LabelTaskSection
from lmexp.cost.flops import count_model
from lmexp.cost.hf import folder_fingerprint
from lmexp.data.tokenizers.build import build_tokenizer, with_fingerprint
from lmexp.errors import UserError
from lmexp.files import absolute_text, read_json, user_path
from lmexp.inference.subject import TASKS
from lmexp.messages import Say, silent
from lmexp.models.build import build_model
from lmexp.models.exchange.folders import CONFIG, export_folder, import_folder
from lmexp.runs.directory import RunDir
from lmexp.runs.find import find_run
from lmexp.runs.origin import origin_columns
from lmexp.runs.record import complete, identity_columns
from lmexp.train.checkpoint import load_final, save_final
from lmexp.train.results import size_columns

SWEEP = "imported"
"""The name of the sweep that imported runs belong to, and of its folder."""
PREDICTS = {"left_to_right": "causal", "both_ways": "masked"}


def export_run(name: str, folder: Path, outputs: Path, say: Say = silent) -> Path:
    """Write a finished run as a folder that transformers loads, and return its path; see export_folder."""
    loaded = load_final(find_run(name, outputs, is_finished=True))
    config = loaded.config
    warn_of_changes(config, name, say)
    labels = config.task.known_labels if isinstance(config.task, LabelTaskSection) else ()
    target = None if loaded.target_tokenizer is loaded.tokenizer else loaded.target_tokenizer
    note = export_folder(config.model, loaded.model, loaded.tokenizer, folder, labels, target)
    if note:
        say(f"{folder}: {note}")
    return folder


def class_named(folder: Path) -> str:
    """Return the library's class with the head that an exported folder has, as its config names it."""
    return str(read_json(folder / CONFIG)["architectures"][0])


def import_run(folder: Path, outputs: Path, name: str | None = None) -> RunDir:
    """Return a finished run with the weights and the tokenizer of a transformers folder.

    Its record has sizes but no quality, which `eval` measures. The same folder always gives the same run.
    Raises UserError for an architecture that is none of lmexp's families, or a tokenizer that does not fit the model.
    """
    folder = Path(absolute_text(user_path(folder)))
    model, weights = import_folder(folder, name)
    words = ["tokenizer=hf", "tokenizer.name=x", f"task={TASKS[PREDICTS[model.reads]]}", "model=gpt_nano"]
    if model.reads == "both_ways":
        words[-1] = "model=bert_nano"
    config = Composer(paths.search_roots(), words=words).config({})
    tokens = with_fingerprint(config.tokenizer.model_copy(update={"name": str(folder)}))
    tokenizer = build_tokenizer(tokens, ())
    if tokenizer.vocab_size > (model.vocab_size or 0):
        raise UserError(f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, and the model {model.vocab_size}")
    origin = InitConfig(run=f"hf:{folder}", run_id=folder_fingerprint(folder))
    batch = config.batch.model_copy(update={"tokens": model.sequence_tokens})
    config = config.model_copy(update={"model": model, "tokenizer": tokens, "init": origin, "batch": batch})
    name_slug = slug({"model": name or folder.name})
    info = RunInfo(id=run_id(config), sweep=SWEEP, slug=name_slug)
    config = config.model_copy(update={"run": info})
    run = RunDir(outputs / SWEEP / f"{name_slug}-{info.id}")
    if run.final.is_dir():
        return run
    built = build_model(model, 0)
    built.load_state_dict(weights)
    if not run.path.exists():
        run = RunDir.create(run.path, config)
    save_final(run, built, config, tokenizer)
    run.write_record([_record(config)])
    run.update_state(state="done", finished=run.now())
    return run


def _record(config: RunConfig) -> dict[str, object]:
    sizes = size_columns(count_model(config.model, config.task), "fp32")
    return complete(identity_columns(config) | sizes | origin_columns(time.time()))
