"""Tasks of lm-eval and of the user: looked up by name, checked, and loaded with their data.

Task files are somebody's programs, through functions, metrics and templates: none that is not lm-eval's own runs unless
the user trusts it.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lmexp.errors import UserError, nearest, reason_of
from lmexp.inference.harness.model import SEED, Writing
from lmexp.messages import Say

TRUST = "if you trust it, --trust-task-code runs it"


@lru_cache(maxsize=1)
def _own() -> Any:
    """Return the index of lm-eval's own tasks; it reads over 10,000 files."""
    from lm_eval.tasks import TaskManager

    return TaskManager().task_index


def entries(names: list[str], folder: Path | None, say: Say) -> dict[str, Any]:
    """Return lm-eval's entries for the names and for all members of those that are groups. Raises UserError.

    The folder's come first; lm-eval's own are looked at only for what is not there.
    """
    from lm_eval.tasks import TaskManager

    index: dict[str, Any] = {}
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"--tasks-dir {folder}: no such folder")
        index = TaskManager(include_path=folder, include_defaults=False).task_index
    chosen, missing = _reached(names, index)
    if missing:
        say("reading the index of lm-eval's tasks")
        index = _own() | index
        chosen, missing = _reached(names, index)
    if missing:
        if folder is not None:
            _check_readable(folder)
        where = f", and none is in a file *.yaml in {folder}" if folder is not None else ""
        raise UserError(f"lm-eval has no task '{missing[0]}'{where}.{nearest(missing[0], index)}")
    return chosen


def _reached(names: Iterable[str], index: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the entries for names and their members, and the names without an entry."""
    entries: dict[str, Any] = {}
    missing, todo = [], list(names)
    while todo:
        name = todo.pop(0)
        if name in entries:
            continue
        if name not in index:
            missing.append(name)
            continue
        entries[name] = index[name]
        todo += sorted(index[name].tags) if index[name].yaml_path is None else _members(index[name].cfg or {})
    return entries, missing


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
    """Raise UserError for a task file that is not YAML, which lm-eval would skip silently."""
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


def check_code(name: str, entry: Any, folder: Path | None, trust_code: bool) -> None:
    """Raise UserError if a task would run Python that was not installed with lm-eval."""
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


def local(entry: Any, cache: Path, trust_code: bool) -> Any:
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


def load(manager: Any, names: list[str]) -> Any:
    """Return tasks with their data. Raises UserError."""
    kinds: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
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
        for kind in kinds:
            kinds[kind] |= loaded.get(kind, {})
    for name, task in kinds["tasks"].items():
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
    return kinds
