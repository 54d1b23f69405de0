"""To and from the form of the transformers library: a finished run as a folder of its, and such a folder as a run."""

import time
from pathlib import Path

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.identity import run_id, slug
from lmexp.config.schema import InitConfig, RunConfig, RunInfo
from lmexp.cost.flops import count_model
from lmexp.cost.hf import folder_fingerprint
from lmexp.data.tokenizers.build import build_tokenizer, with_fingerprint
from lmexp.errors import UserError
from lmexp.inference.subject import TASKS
from lmexp.models.build import build_model
from lmexp.models.exchange.folders import export_folder, import_folder
from lmexp.runs.directory import RunDir
from lmexp.runs.find import find_run
from lmexp.runs.origin import origin_columns
from lmexp.runs.record import complete, identity_columns
from lmexp.train.checkpoint import load_final, save_final

SWEEP = "imported"
"""The folder among outputs that imported runs lie in."""
PREDICTS = {"left_to_right": "causal", "both_ways": "masked"}


def export_run(name: str, folder: Path, outputs: Path) -> Path:
    """Write a finished run as a folder that transformers loads, and return its path. See export_folder."""
    loaded = load_final(find_run(name, outputs))
    export_folder(loaded.config.model, loaded.model, loaded.tokenizer, folder)
    return folder


def import_run(folder: Path, outputs: Path, name: str | None = None) -> RunDir:
    """Make a finished run out of a model of transformers whose architecture is one of our families; return it.

    Its record has sizes and no quality: `eval` finds that out. The same folder again is the same run. Raises UserError.
    """
    folder = folder.expanduser().absolute()
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
    words_of_name = slug({"model": name or folder.name})
    info = RunInfo(id=run_id(config), sweep=SWEEP, slug=words_of_name)
    config = config.model_copy(update={"run": info})
    run = RunDir(outputs / SWEEP / f"{words_of_name}-{info.id}")
    if run.final.is_dir():
        return run
    ours = build_model(model, 0)
    ours.load_state_dict(weights)
    if not run.path.exists():
        run = RunDir.create(run.path, config)
    save_final(run, ours, config, tokenizer)
    run.write_record([_record(config)])
    run.update_state(state="done", finished=time.time())
    return run


def _record(config: RunConfig) -> dict[str, object]:
    count = count_model(config.model, config.task)
    sizes = {
        "n_params": count.n_params,
        "n_params_active": count.n_params_active,
        "n_params_embedding": count.n_params_embedding,
        "n_params_matmul": count.n_params_matmul,
        "flops_per_token": count.flops_per_token,
        "weights_gb": 4 * count.n_params / 1e9,
    }
    return complete(identity_columns(config) | sizes | origin_columns(time.time()))
