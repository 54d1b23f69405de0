"""Tasks of lm-eval, the evaluation harness of EleutherAI, on models of this package.

lm-eval asks a model for three things: how likely a text is after another, how likely a text is by itself, and what it
writes after a text. Notable choices: every text begins with the token that begins a document, as in training (lm-eval's
own models do so with add_bos_token=True); what is longer than the context is cut on the left. Task files are somebody's
programs, through functions, metrics and templates: none of it runs unless the user trusts it.
"""

import contextlib
import logging
import math
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from lmexp.cost.device import detect
from lmexp.errors import UserError, nearest, reason_of
from lmexp.models.base import Decoder, LanguageModel
from lmexp.models.hf import HFModel
from lmexp.models.sampling import sample
from lmexp.train.checkpoint import Loaded

IS_HERE = find_spec("lm_eval") is not None
if IS_HERE:
    from lm_eval.api.model import LM
else:
    LM = object

Say = Callable[[str], None]
SEED = 1234
"""lm-eval's own, for examples in prompts and for what is drawn."""
RESAMPLES = 1000
"""Of the bootstrap, for the standard errors of metrics that are no means."""
BATCH = 16
"""Sequences at a time."""
MOST_WRITTEN = 256
"""Tokens, where a task does not say; lm-eval's own default."""
PATIENCE = 10.0
"""Seconds between two words on how far it has come."""
TRUST = "if you trust it, --trust-task-code runs it"


class Window(NamedTuple):
    """A sequence of which the last tokens are scored, each from all those before it."""

    owner: int
    """The place of the request that it is of."""
    tokens: list[int]
    scored: int
    """How many of the tokens, at least one, and not the first."""


@dataclass(frozen=True)
class Writing:
    """How a task wants texts to be written."""

    until: tuple[str, ...]
    """A text ends before the first of these."""
    most: int
    """Tokens."""
    temperature: float
    """0: always the likeliest token."""
    top_k: int | None
    top_p: float

    @classmethod
    def of(cls, wanted: dict[str, Any]) -> "Writing":
        """Read `generation_kwargs` as lm-eval does. Raises UserError for what is not supported here."""
        known = {key: value for key, value in wanted.items() if value is not None}
        until = known.pop("until", ())
        counts = [known.pop(key, None) for key in ("max_gen_toks", "max_new_tokens", "max_tokens")]
        counts += [known.pop("max_completion_tokens", None), MOST_WRITTEN]
        draws = known.pop("do_sample", None)
        temperature = float(known.pop("temperature", 1.0 if draws else 0.0))
        top_k, top_p = int(known.pop("top_k", 0)), float(known.pop("top_p", 1.0))
        if known.get("num_beams") == 1:
            del known["num_beams"]
        if known:
            raise UserError(f"generation_kwargs.{next(iter(known))} is not supported")
        if not 0 < top_p <= 1 or temperature < 0 or top_k < 0:
            raise UserError(f"generation_kwargs: temperature={temperature:g}, top_k={top_k}, top_p={top_p:g}")
        return cls(
            until=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
            most=int(next(count for count in counts if count is not None)),
            temperature=0.0 if draws is False else temperature,
            top_k=top_k or None,
            top_p=top_p,
        )


class HarnessModel(LM):  # type: ignore[misc,unused-ignore]
    """A causal model of this package as lm-eval wants it.

    Requests are lm-eval's Instances, and answers are in their order.
    """

    def __init__(self, loaded: Loaded, batch: int = BATCH, say: Say = lambda line: None) -> None:
        """Raises UserError for a model that does not predict each token from those before it."""
        super().__init__()
        config = loaded.config
        if not (
            config.model.reads == "left_to_right"
            and config.task.name == "causal_lm"
            and isinstance(loaded.model, LanguageModel)
        ):
            raise UserError(
                f"lm-eval's tasks need a model that predicts each token from those before it, and this one "
                f"is of model={config.model.name} task={config.task.name}"
            )
        self.model: LanguageModel = loaded.model
        self.tokenizer = loaded.tokenizer
        self.context, self.batch, self.say = config.model.context, batch, say
        self.ends = {loaded.tokenizer.bos_id, *_published_ends(loaded.model)}
        """Tokens that end what is written."""
        self._device = next(loaded.model.parameters()).device

    def move(self, device: str) -> None:
        """Move the model to a device."""
        self.model.to(device)
        self._device = next(self.model.parameters()).device

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return how likely each continuation is after its context: the log-probability, and whether all its tokens
        are the model's first choice.
        """
        pairs = [self.encode_pair(*request.args) for request in requests]
        windows = [w for owner, pair in enumerate(pairs) for w in self._windows(owner, *pair)]
        long = sum(len(context) + len(text) > self.context + 1 for context, text in pairs)
        if long:
            self.say(f"lm-eval: {long:,} of {len(pairs):,} texts are cut on the left to a context of {self.context}")
        return self._scores(windows, len(pairs))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text as a document: every token once, with as much before it as fits."""
        start = [self.tokenizer.bos_id]
        texts = [self._encode(request.args[0]) for request in requests]
        windows = [w for owner, text in enumerate(texts) for w in self._windows(owner, start, text)]
        return [total for total, _ in self._scores(windows, len(texts))]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return what the model writes after each context."""
        written, progress = [], self._progress(len(requests), "texts")
        for place, request in enumerate(requests):
            context, wanted = request.args
            written.append(self._write(context, Writing.of(wanted), SEED + place))
            progress(1)
        return written

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a context, which begins a document, and of what follows it.

        As in lm-eval, spaces between the two belong to the continuation, and its tokens are those that it has in the
        whole: the first may be another than by itself.
        """
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        before = self._encode(context)
        after = self._encode(context + continuation)[len(before) :]
        if not after:  # one token spells both
            after = self._encode(continuation)
        return [self.tokenizer.bos_id, *before], after

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).tolist()
        return ids

    def _windows(self, owner: int, context: list[int], continuation: list[int]) -> Iterator[Window]:
        """Cut a continuation into parts that fit, each with as much of what is before it as fits too."""
        tokens = context + continuation
        for end in range(len(context), len(tokens), self.context):
            stop = min(end + self.context, len(tokens))
            yield Window(owner, tokens[max(0, stop - self.context - 1) : stop], stop - end)

    @torch.inference_mode()
    def _scores(self, windows: list[Window], count: int) -> list[tuple[float, bool]]:
        """Return for each of `count` owners the sum of its windows, and whether all tokens are the first choice."""
        totals, greedy = [0.0] * count, [True] * count
        progress = self._progress(len(windows), "sequences")
        by_length = sorted(windows, key=lambda window: -len(window.tokens))  # little padding, and the largest first
        for start in range(0, len(by_length), self.batch):
            group = by_length[start : start + self.batch]
            # Padding comes last, where no token that is scored looks.
            inputs = torch.zeros(len(group), len(group[0].tokens) - 1, dtype=torch.int64)
            for row, window in zip(inputs, group, strict=True):
                row[: len(window.tokens) - 1] = torch.tensor(window.tokens[:-1])
            hidden = self.model.hidden(inputs.to(self._device))  # (B, T, C)
            for states, window in zip(hidden, group, strict=True):
                length, scored = len(window.tokens) - 1, window.scored
                scores = self.model.logits(states[length - scored : length]).float()  # (scored, V)
                targets = torch.tensor(window.tokens[-scored:], device=self._device)
                likely = scores.log_softmax(-1).gather(-1, targets.unsqueeze(-1))
                totals[window.owner] += float(likely.cpu().sum(dtype=torch.float64))
                greedy[window.owner] &= bool((scores.argmax(-1) == targets).all())
            progress(len(group))
        return list(zip(totals, greedy, strict=True))

    def _write(self, context: str, how: Writing, seed: int) -> str:
        """Continue a context until the model ends the document, the text holds what ends it, or there is enough.

        As in lm-eval, a prompt leaves room for what is written; where the whole context has not that much, the prompt
        keeps the context, and its oldest tokens make way one by one.
        """
        prompt = [self.tokenizer.bos_id, *self._encode(context)]
        if len(prompt) + how.most > self.context:
            prompt = prompt[-(self.context - how.most if how.most < self.context else self.context) :]
        model = self.model if self._device.type == "cpu" else Elsewhere(self.model, self._device)
        ids: list[int] = []
        for token in sample(model, prompt, how.most, self.context, how.temperature, how.top_k, how.top_p, seed):
            if token in self.ends:
                break
            ids.append(token)
            if how.until and any(stop in self.tokenizer.decode(ids) for stop in how.until):
                break
        text = self.tokenizer.decode(ids)
        return text[: min((text.find(stop) for stop in how.until if stop in text), default=None)]

    def _progress(self, total: int, what: str) -> Callable[[int], None]:
        """Return what to call with how many more are done: it says so from time to time."""
        done, said = 0, time.monotonic()

        def add(more: int) -> None:
            nonlocal done, said
            done += more
            if time.monotonic() - said > PATIENCE and done < total:
                said = time.monotonic()
                self.say(f"lm-eval: {done:,} of {total:,} {what}")

        return add


class Elsewhere(nn.Module):
    """A model on another device for `sample`, which draws on the CPU."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model, self.device = model, device
        if isinstance(model, Decoder):
            self.new_cache = model.new_cache

    def forward(self, tokens: Tensor, *cache: Any, **options: Any) -> Tensor:
        """See LanguageModel.forward."""
        scores: Tensor = self.model(tokens.to(self.device), *cache, **options)
        return scores.cpu()


def _published_ends(model: nn.Module) -> list[int]:
    """Return the tokens with which a pretrained model of others ends what it writes."""
    if not isinstance(model, HFModel) or model.config.pretrained is None:
        return []
    ends = getattr(getattr(model.model, "generation_config", None), "eos_token_id", None)
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def evaluate(
    loaded: Loaded, tasks: list[str], folder: Path | None, limit: int | None, trust_code: bool, say: Say
) -> dict[str, dict[str, float]]:
    """Return what a causal model reaches on tasks of lm-eval, and on those of their groups: {task: {metric: value}}.

    A metric has its plain name, as in `acc` and `acc_stderr`; where a task extracts answers in several ways, their
    names follow, as in `exact_match-strict-match`. What is no finite number is left out.

    Args:
        tasks: names of tasks, groups or tags.
        folder: of task files of the user's own, `*.yaml`, which come before lm-eval's of the same name. Their data
            files are looked for beside the task file, then in the working directory, and always read anew.
        limit: how many documents of each task, from the first on; None: all.
        trust_code: whether what task files hold of Python, or fetch from the hub, may run.

    Raises UserError.
    """
    if not IS_HERE:
        raise UserError("eval --lm-eval needs lm-eval: pip install 'lmexp[eval]'")
    names = [name for name in dict.fromkeys(tasks) if name]
    if not names:
        raise UserError("--lm-eval: the name of a task is missing")
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: at least 1")
    model = HarnessModel(loaded, say=say)
    with _quiet(), tempfile.TemporaryDirectory(prefix="lmexp-lm-eval-") as cache:
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager

        entries = _entries(names, folder, say)
        for name, entry in entries.items():
            _check_code(name, entry, folder, trust_code)
        manager = TaskManager(include_defaults=False)
        manager.task_index.update({name: _local(entry, Path(cache), trust_code) for name, entry in entries.items()})
        with _sandbox(trust_code):
            found = _load(manager, names)
            for name, task in found["tasks"].items():
                say(f"lm-eval: {name}, {min(len(task.eval_docs), limit or math.inf):,} documents")
            device = detect(loaded.config.trainer.accelerator if loaded.config.trainer.accelerator == "cpu" else "auto")
            model.move(device.kind)
            _seed()
            try:
                results = evaluator.evaluate(
                    model,
                    found,
                    limit=limit,
                    bootstrap_iters=RESAMPLES,
                    log_samples=False,
                    confirm_run_unsafe_code=trust_code,
                )
            except Exception as error:
                if isinstance(error, UserError) or _is_ours(error):
                    raise
                raise UserError(f"lm-eval fails on {', '.join(names)}: {reason_of(error)}") from error
    scores = {name: _plain(metrics) for name, metrics in results["results"].items()}
    return {name: metrics for name, metrics in scores.items() if metrics}


def _is_ours(error: Exception) -> bool:
    """Return whether it was raised while the model answered, and not by a task's own words or data."""
    return sum(frame.f_code.co_filename == __file__ for frame, _ in traceback.walk_tb(error.__traceback__)) > 1


def _plain(metrics: dict[str, Any]) -> dict[str, float]:
    """Return lm-eval's numbers, whose names end in that of a filter, by plain names."""
    pairs = [(*key.split(",", 1), value) for key, value in metrics.items() if "," in key]
    numbers = [
        (metric, way, float(value))
        for metric, way, value in pairs
        if isinstance(value, int | float | np.number) and math.isfinite(value)
    ]
    ways = {metric: {way for other, way, _ in numbers if other == metric} for metric, _, _ in numbers}
    plain = {}
    for metric, way, value in numbers:
        plain[metric if way == "none" or len(ways[metric]) == 1 else f"{metric}-{way}"] = value
    return plain


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what lm-eval and its libraries say about themselves out of the way, and all of it off standard output."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled
    from tqdm import tqdm

    had_bars, before, begin = is_progress_bar_enabled(), logging.root.manager.disable, tqdm.__init__

    def hidden(bar: Any, *words: Any, **options: Any) -> None:
        begin(bar, *words, **options | {"disable": True})

    logging.disable(logging.WARNING)
    disable_progress_bar()
    # The bootstrap would start a process for each core, whatever the share of this one.
    environment = mock.patch.dict(os.environ, {"DISABLE_MULTIPROC": "1"})
    try:
        with mock.patch.object(tqdm, "__init__", hidden), environment, contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)
        if had_bars:
            enable_progress_bar()


@contextlib.contextmanager
def _sandbox(trust_code: bool) -> Iterator[None]:
    """Let templates, unless they are trusted, reach nothing but the document that they are filled with."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    if trust_code:
        yield
        return
    safe = SandboxedEnvironment(
        loader=utils.env.loader, undefined=utils.env.undefined, keep_trailing_newline=utils.env.keep_trailing_newline
    )
    safe.filters |= utils.env.filters
    with mock.patch.object(utils, "env", safe):
        yield


def _seed() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@lru_cache(maxsize=1)
def _own() -> Any:
    """Return the index of lm-eval's own tasks; it reads over 10,000 files."""
    from lm_eval.tasks import TaskManager

    return TaskManager().task_index


def _entries(names: list[str], folder: Path | None, say: Say) -> dict[str, Any]:
    """Return lm-eval's entries for the names and for all members of those that are groups. Raises UserError.

    The folder's come first; lm-eval's own are looked at only for what is not there.
    """
    from lm_eval.tasks import TaskManager

    index: dict[str, Any] = {}
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"--tasks-dir {folder}: no such folder")
        index = TaskManager(include_path=folder, include_defaults=False).task_index
    found, missing = _reached(names, index)
    if missing:
        say("reading the index of lm-eval's tasks")
        index = _own() | index
        found, missing = _reached(names, index)
    if missing:
        if folder is not None:
            _check_readable(folder)
        where = f", and none is in a file *.yaml in {folder}" if folder is not None else ""
        raise UserError(f"lm-eval has no task '{missing[0]}'{where}.{nearest(missing[0], index)}")
    return found


def _reached(names: Iterable[str], index: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the entries for names and their members, and the names that there are none for."""
    found: dict[str, Any] = {}
    missing, todo = [], list(names)
    while todo:
        name = todo.pop(0)
        if name in found:
            continue
        if name not in index:
            missing.append(name)
            continue
        found[name] = index[name]
        todo += sorted(index[name].tags) if index[name].yaml_path is None else _members(index[name].cfg or {})
    return found, missing


def _members(group: dict[str, Any]) -> list[str]:
    """Return the names that a group refers to; tasks and groups that it defines itself are not among them."""
    listed = group.get("task")
    members = []
    for member in listed if isinstance(listed, list) else []:
        if isinstance(member, str):
            members.append(member)
        elif isinstance(member.get("task"), str) and "group" not in member and "dataset_path" not in member:
            members.append(member["task"])
        elif isinstance(member, dict):
            members += _members(member)
    return members


def _check_readable(folder: Path) -> None:
    """Raise UserError for a task file that is no YAML: lm-eval passes over it."""
    for file in sorted(folder.rglob("*.yaml")):
        _tags(file)


def _tags(file: Path, seen: frozenset[Path] = frozenset()) -> Iterable[tuple[Path, str]]:
    """Return the tags, with their values, that a YAML file and what it includes have besides YAML's own."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(reason_of(error).split())}") from error
    tags, todo, visited = [], [root], set()
    while todo:
        node = todo.pop()
        if node is None or id(node) in visited:
            continue
        visited.add(id(node))
        if not node.tag.startswith("tag:yaml.org,2002:") or "python/" in node.tag:
            tags.append((file, f"{node.tag} {node.value if isinstance(node.value, str) else ''}".strip()))
        if isinstance(node, yaml.MappingNode):
            todo += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "include":
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                other = (file.parent / part.value).resolve()
                if other not in seen:
                    tags += _tags(other, seen | {file.resolve(), other})
    return tags


def _check_code(name: str, entry: Any, folder: Path | None, trust_code: bool) -> None:
    """Raise UserError where a task would run Python that is neither ours nor installed with lm-eval."""
    if trust_code:
        return
    if _is_own(entry):
        for file, tag in _tags(Path(entry.yaml_path)) if entry.yaml_path is not None else ():
            raise UserError(f"{file}: {tag} runs Python of its own; {TRUST}")
    from lm_eval import tasks
    from lm_eval.api.registry import METRIC_REGISTRY

    for config in _configs(entry.cfg or {}):
        if config.get("unsafe_code"):
            raise UserError(f"the task '{name}' runs Python that the model writes; {TRUST}")
        if _is_own(entry) and (config.get("dataset_kwargs") or {}).get("trust_remote_code"):
            raise UserError(f"{entry.yaml_path}: trust_remote_code runs Python of the data; {TRUST}")
        for metric in config.get("metric_list") or []:
            word = str(metric.get("metric"))
            is_known = word in METRIC_REGISTRY or word.startswith(str(Path(tasks.__file__).parent))
            if (not is_known and "process_results" not in config) or metric.get("hf_evaluate"):
                raise UserError(
                    f"the task '{name}' takes its metric '{word}' from the library evaluate, which runs Python of the "
                    f"hub; {TRUST}.{nearest(word, METRIC_REGISTRY) if not is_known else ''}"
                )


def _is_own(entry: Any) -> bool:
    """Return whether a task is the user's, and not one that came with lm-eval."""
    from lm_eval import tasks

    return entry.yaml_path is not None and Path(tasks.__file__).resolve().parent not in Path(entry.yaml_path).parents


def _configs(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a task's config, or a group's and those of the tasks that it defines or changes."""
    yield config
    listed = config.get("task")
    for member in listed if isinstance(listed, list) else []:
        if isinstance(member, dict):
            yield from _configs(member)


def _local(entry: Any, cache: Path, trust_code: bool) -> Any:
    """Return the entry of a task of the user's with its data files found, and what becomes of them kept in `cache`."""
    if not _is_own(entry):
        return entry
    from dataclasses import replace

    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(entry.yaml_path, resolve_func=True) if trust_code else entry.cfg
    beside = Path(entry.yaml_path).parent
    for part in _configs(config):
        if "dataset_path" in part and (beside / str(part["dataset_path"])).is_dir():
            part["dataset_path"] = str(beside / part["dataset_path"])
        options = dict(part.get("dataset_kwargs") or {})
        for key in ("data_files", "data_dir"):
            if key in options:
                options[key] = _found(options[key], beside)
        is_local = Path(str(part.get("dataset_path"))).is_dir() or "data_files" in options or "data_dir" in options
        if is_local and "://" not in str(options):
            options["cache_dir"] = str(cache)
        if options:
            part["dataset_kwargs"] = options
    return replace(entry, cfg=config, yaml_path=None)


def _found(files: Any, beside: Path) -> Any:
    """Return paths or patterns of data files, one, several, or by split, with those beside the task file in full."""
    if isinstance(files, dict):
        return {split: _found(part, beside) for split, part in files.items()}
    if isinstance(files, list):
        return [_found(part, beside) for part in files]
    if "://" in files or Path(files).is_absolute():
        return files
    return str(beside.absolute() / files) if any(beside.glob(files)) else files


def _load(manager: Any, names: list[str]) -> Any:
    """Return tasks with their data. Raises UserError."""
    found: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        try:
            loaded = manager.load([name])
        except UserError:
            raise
        except ConnectionError as error:
            raise UserError(
                f"the task '{name}' needs data of the Hugging Face hub, which cannot be reached: {reason_of(error)}"
            ) from error
        except Exception as error:  # of a wrong key in a task file, of its templates, of its data: all are lm-eval's
            raise UserError(f"the task '{name}' cannot be loaded: {reason_of(error)}") from error
        for kind in found:
            found[kind] |= loaded.get(kind, {})
    for name, task in found["tasks"].items():
        if getattr(task, "MULTIMODAL", False):
            raise UserError(f"the task '{name}' shows images or plays sounds, and this model reads text")
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=SEED)
        if task.OUTPUT_TYPE == "generate_until":
            try:
                Writing.of(task.get_config("generation_kwargs") or {})
            except UserError as error:
                raise UserError(f"the task '{name}': {error}") from None
    return found
