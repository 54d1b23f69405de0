"""From words to a checked config: Hydra composes, the schema checks, and a mistake is said in one line.

Composing reads a dozen files and takes a tenth of a second, and a sweep's cells mostly differ in values. So each choice
of groups is composed once and kept, and values are set on a copy of it. A number or a text that replaces another one is
set on plain mappings, because copying OmegaConf's nodes would take much longer. Everything else (interpolations,
mappings, lists, missing keys) is set with the function that Hydra itself uses.
"""

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue
from omegaconf.resolvers import oc
from pydantic import BaseModel, ValidationError

from lmexp.config import paths, trust
from lmexp.config.base import NO_BOOLEAN_BUT_TEXT, fault_of, is_tag
from lmexp.config.hydra_files import CHOICE, GROUP, CheckedFiles, SweepFile
from lmexp.config.overrides import parse_overrides, quoted, sets_a_value, swept_values, written
from lmexp.config.schema import RunConfig
from lmexp.config.sweeps import SweepSpec
from lmexp.config.yaml_files import line_of, read_yaml, shown
from lmexp.errors import UserError, nearest

Values = dict[str, Any]
"""Keys with dots, or names of groups, and the values they are to have."""
S = TypeVar("S", bound=BaseModel)


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Put the Hydra of the user's program aside, if it has one: there is a single one in a process."""
    users = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = users  # another instance by now


@contextmanager
def _checked_environment() -> Iterator[None]:
    """Let OmegaConf read variables of the environment only if the user names them. Raises UserError for another."""
    refused: list[UserError] = []

    def read(name: str, *default: Any) -> Any:
        try:
            trust.check_variable(name)
        except UserError as problem:
            refused.append(problem)
            raise
        return oc.env(name, *default)

    OmegaConf.register_new_resolver(trust.ENVIRONMENT, read, replace=True)
    try:
        yield
    except Exception:
        if refused:
            raise refused[0] from None  # without what OmegaConf says about it
        raise
    finally:
        OmegaConf.register_new_resolver(trust.ENVIRONMENT, oc.env, replace=True)


MAX_SHOWN = 20
"""Choices that a message names; of more, the nearest is enough."""
ELSEWHERE = {
    "model.dff": "model.d_ff",
    "model.dropout_rate": "model.dropout",
    "model.input_positions": "model.input_context",
    "model.max_position_embeddings": "model.context",
    "model.maximum_position_encoding": "model.input_context and model.context",
    "model.num_heads": "model.n_heads",
    "model.num_layers": "model.n_layers",
    "model.pe_input": "model.input_context",
    "model.pe_target": "model.context",
    "model.rate": "model.dropout",
    "model.target_positions": "model.context",
    "model.target_vocab_size": "model.vocab_size",
    "trainer.accumulate_grad_batches": "batch.tokens and batch.micro",
    "trainer.callbacks": "callbacks, a list of {_target_: ...}",
    "trainer.default_root_dir": "--output-dir",
    "trainer.gradient_clip_val": "optim.grad_clip",
    "trainer.log_every_n_steps": "trainer.log_every",
    "trainer.logger": "logger=wandb and its like",
    "trainer.max_epochs": "budget.epochs",
    "trainer.max_steps": "budget.tokens",
    "trainer.precision": "precision=bf16 and its like",
    "trainer.val_check_interval": "evaluation.every",
}
"""Names that others have for a key, Lightning's options among them, and what sets it here."""


def allow_code(words: list[str], config_dir: Path | None = None) -> None:
    """Allow the code that a user's own words name, and that in the user's own folder of configs.

    Never pass words that were made from a run's config: that would allow whatever somebody else's run names.
    """
    for override in parse_overrides([word for word in words if trust.concerns(word)]):
        values = swept_values(override) if override.is_sweep_override() else [override.value()]
        trust.allow_words({override.key_or_group: values})
    trust.allow(folder=Path(os.path.realpath(config_dir)) if config_dir else None)


BOOLEAN_HINT = "YAML takes on, off, yes and no for true or false: put the word in quotes"
_IN_SWEEP_FILE = f"In '{GROUP}/{CHOICE}': "
"""How Hydra names a sweep file in its messages."""
NUMBER_HINT = "a text that looks like a number needs quotes"


@dataclass
class Composer:
    """Composes configs from one set of roots, one sweep file or none, and the words of a command line."""

    roots: list[Path]
    sweep_file: Path | None = None
    words: list[str] = field(default_factory=list)
    _composed: dict[tuple[str, ...], DictConfig] = field(default_factory=dict, repr=False)
    _plain: dict[tuple[str, ...], "_Plain"] = field(default_factory=dict, repr=False)
    _lacking: dict[tuple[str, ...], "Composer"] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.sweep_file is not None:
            self.sweep_file = self.sweep_file.absolute()
            content = read_yaml(self.sweep_file)
            if not isinstance(content, dict):
                raise UserError(f"{shown(self.sweep_file)}: a sweep file is a mapping with a key `sweep`")
            if "paper" in content and "sweep" not in content:
                has_points = isinstance(content["paper"], dict) and "points" in content["paper"]
                how = " --points FILE` judges it on its published data" if has_points else "` judges it at once"
                raise UserError(
                    f"{shown(self.sweep_file)}: this paper has no runs to train; "
                    f"`lmexp reproduce {self.sweep_file.stem}{how}"
                )
        self._groups = paths.groups(self.roots)
        self._clashes = paths.clashes(self.roots)

    def sweep_spec(self) -> SweepSpec:
        """Return the study that the sweep file (and the words) describe."""
        cfg = self._compose({})
        with _translate(self, cfg), _checked_environment():
            plain = OmegaConf.to_container(cfg, resolve=False)
            node = OmegaConf.to_container(cfg["sweep"], resolve=True) if OmegaConf.is_dict(cfg.get("sweep")) else None
        if node is None:
            given = plain.get("sweep") if isinstance(plain, dict) else None
            raise UserError(f"{self.place('sweep')}sweep={given!r}: expected a mapping with grid, zip, points or seeds")
        return self._check(SweepSpec, node, ("sweep",))

    def config(self, values: Values) -> RunConfig:
        """Return the checked config of one cell. Raises UserError with one line."""
        plain = self._with_leaves(values)
        if plain is None:
            cfg = self._compose(values)
            with _translate(self, cfg), _checked_environment():
                container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
            assert isinstance(container, dict)
            plain = {str(key): value for key, value in container.items()}
        for node in ("sweep", "paper"):  # they describe the study
            plain.pop(node, None)
        for key, value in _texts(plain):
            if _NO_TEXT.search(value):
                raise UserError(f"{self.place(key)}{key}={value!a}: it holds a character that no file can hold")
        for section, content in plain.items():
            for target in trust.names_of_code(content):
                trust.check_trusted(target, f"{section!s}._target_")
        config = self._check(RunConfig, plain, ())
        if self._is_from_elsewhere:
            trust.check_settings(plain)
        return config

    def _with_leaves(self, values: Values) -> dict[str, Any] | None:
        """Return the unchecked config of one cell if its values only replace leaves; None if OmegaConf must compose it.

        OmegaConf is also needed for interpolations, and for values that are still missing.
        """
        groups = {key: value for key, value in values.items() if key in self._groups}
        group_words = self._group_words(groups)
        if group_words not in self._plain:
            self._plain[group_words] = _Plain.of(self._compose(groups))
        base = self._plain[group_words]
        if base.has_interpolations or base.missing - values.keys():
            return None
        cell: dict[str, Any] = _copied(base.content)
        leaves = {key: value for key, value in values.items() if key not in groups}
        return cell if all(_set_leaf(cell, key, value) for key, value in leaves.items()) else None

    @property
    def _is_from_elsewhere(self) -> bool:
        """Whether the sweep file lies in no folder whose configs speak for the user."""
        file = self.sweep_file
        return file is not None and not any(file.is_relative_to(root / paths.SWEEPS) for root in self.roots)

    def _compose(self, values: Values) -> DictConfig:
        group_words = self._group_words({key: value for key, value in values.items() if key in self._groups})
        if group_words not in self._composed:
            self._composed[group_words] = self._compose_groups(group_words)
        cfg = copy.deepcopy(self._composed[group_words])
        plain = {word.key_or_group: word.value() for word in self._last_words if not self._is_structural(word)}
        for key, value in (plain | {k: v for k, v in values.items() if k not in self._groups}).items():
            with _translate(self, cfg):
                # What goes into a mapping is the schema's to check: some are open.
                OmegaConf.update(cfg, key, value, merge=True, force_add=isinstance(value, dict))
        return cfg

    def _group_words(self, groups: Values) -> tuple[str, ...]:
        """Return the words that Hydra composes from: those that do more than set a value, and `groups`."""
        for word in self._last_words:
            if word.key_or_group in self._groups and not sets_a_value(word):
                raise UserError(f"{word.input_line}: a group has one choice; write {word.key_or_group}=...")
        chosen = [word for word in self._last_words if self._is_structural(word)]
        return tuple(
            [word.input_line or "" for word in chosen if word.key_or_group not in groups]
            + [self._choice(group, choice) for group, choice in groups.items()]
        )

    @cached_property
    def _last_words(self) -> list[Override]:
        """The words; if several set one key, in whatever way, only the last of them."""
        last: dict[tuple[str, str | None], Override] = {}
        for word in parse_overrides(self.words):
            place = (word.key_or_group, word.package)
            last.pop(place, None)
            last[place] = word
        return list(last.values())

    def _is_structural(self, word: Override) -> bool:
        """Whether a word does more than set a value that is there: chooses, adds, deletes, renames."""
        return (
            word.key_or_group in self._groups
            or word.is_add()
            or word.is_force_add()
            or word.is_delete()
            or word.package is not None
            or word.key_or_group.startswith("hydra")
        )

    def _choice(self, group: str, choice: Any) -> str:
        """Return the word that chooses in a group. Raises UserError for a choice that YAML took for another value."""
        if isinstance(choice, bool):
            raise UserError(f"{self.place(group)}{group}={written(choice)}: {BOOLEAN_HINT}")
        return f"{group}={written(choice)}"

    def _compose_groups(self, words: tuple[str, ...]) -> DictConfig:
        folders = [str(root / paths.CONF) for root in self.roots if (root / paths.CONF).is_dir()]
        addresses, shipped = [f"{CheckedFiles.scheme()}://{folder}" for folder in folders], folders[-1]
        # Never empty: Hydra then looks at the whole path anew.
        overrides = [f"hydra.searchpath=[{quoted(f'file://{shipped}')}]", *words]
        if self.sweep_file is not None:
            addresses.append(f"{SweepFile.scheme()}://{self.sweep_file}")
            overrides.insert(1, f"+{GROUP}@_global_={CHOICE}")
        with (
            _own_hydra(),
            _translate(self, None),
            _checked_environment(),
            initialize_config_dir(shipped, version_base="1.3"),
        ):
            path = GlobalHydra.instance().config_loader().get_search_path()
            for address in addresses:  # in this order: a user's choice hides a shipped one of its name
                path.prepend("lmexp", address, SearchPathQuery(provider="main"))
            cfg = compose("config", overrides=overrides, return_hydra_config=True)
            for group, choice in cfg.hydra.runtime.choices.items():
                paths.check_clash(f"{paths.CONF}/{group}/{choice}.yaml", self._clashes)
            with open_dict(cfg):
                del cfg["hydra"]
            return cfg

    def _check(self, schema: type[S], plain: Any, above: tuple[str, ...]) -> S:
        try:
            return schema.model_validate(plain)
        except ValidationError as error:
            raise UserError(self._explain_validation(error, plain, above)) from None

    def _explain_validation(self, error: ValidationError, plain: Any, above: tuple[str, ...]) -> str:
        first = error.errors(include_url=False)[0]
        keys, siblings = _locate(tuple(part for part in first["loc"] if not is_tag(part)), plain)
        if first["type"] == "value_error" and keys and keys[-1] not in siblings:
            keys.pop()  # the tag of a union, in front of what is wrong with a section as a whole
        key = ".".join([*above, *keys])
        if first["type"] == "extra_forbidden":
            return self.unknown(key, nearest(keys[-1], [name for name in siblings if name != keys[-1]]))
        if first["type"] == "missing":
            return f"{self.place(key)}{key} is missing"
        said = fault_of(first)
        value = first["input"]
        given = "" if isinstance(value, dict | list) else f"={value}"
        if first["type"] == "union_tag_invalid":
            context = first["ctx"]
            tag = context["discriminator"].split(" | ")[-1].strip("'")  # a field, and the name that YAML has for it
            return f"{key}.{tag}={context['tag']}: expected one of {context['expected_tags']}"
        return f"{self.place(key)}{key}{given}: {said}{_hint_of_quotes(first['type'], value)}"

    def without(self, sections: list[str]) -> "Composer":
        """Return one that lacks the words about these sections."""
        kept = [word for word in self.words if parse_overrides([word])[0].key_or_group.split(".")[0] not in sections]
        if kept == self.words:
            return self
        return self._lacking.setdefault(tuple(kept), Composer(self.roots, self.sweep_file, kept))

    def unknown(self, key: str, hint: str) -> str:
        """Say that there is no such key, and what to write instead."""
        if key in ELSEWHERE:
            hint = f" It is set by {ELSEWHERE[key]}."
        if key == "launcher.devices_per_run":
            hint = " Only launcher=local has it: on a cluster, the scheduler says where runs train."
        if f"{key}.".startswith("data.canaries."):
            hint = " Only sources of running text have it, as data=stdlib does: canaries are planted between documents."
        return f"{self.place(key)}{key} is not a key of the config.{hint}{self._hint_of_file(key)}"

    def _hint_of_file(self, key: str) -> str:
        """Return how to drop a key that the sweep file sets and that a choice on the command line lacks, or nothing."""
        words = {word.key_or_group: word.input_line for word in parse_overrides(self.words)}
        choice = next((line for group, line in words.items() if key.startswith(f"{group}.")), None)
        if self.sweep_file is None or choice is None or key in words:
            return ""
        line = line_of(self.sweep_file, key.split("."))
        if line is None:
            return ""
        return f" {shown(self.sweep_file)}:{line} sets it, and {choice} has no such key: add '~{key}' to drop it."

    def place(self, key: str) -> str:
        """Return `sweeps/demo.yaml:7: ` when the sweep file names `key`, else nothing: it was a word."""
        words = [word.key_or_group for word in parse_overrides(self.words)]
        if self.sweep_file is None or any(key == word or key.startswith(f"{word}.") for word in words):
            return ""
        lines = [line_of(self.sweep_file, keys) for keys in self._keys_in_file(key)]
        line = next((line for line in lines if line is not None), None)
        return f"{shown(self.sweep_file)}:{line}: " if line else ""

    def _keys_in_file(self, key: str) -> Iterator[list[str]]:
        """Yield the nested keys under which a sweep file can set a key."""
        yield key.split(".")
        yield from (["sweep", axes, key] for axes in ("grid", "zip"))


def _hint_of_quotes(kind: str, value: Any) -> str:
    """Return what to write for a text that was taken for another value, or nothing."""
    if kind == NO_BOOLEAN_BUT_TEXT.type or (isinstance(value, bool) and kind in _WANT_TEXT):
        return f"; {BOOLEAN_HINT}"
    if isinstance(value, int | float) and kind in _WANT_TEXT:
        return f"; {NUMBER_HINT}"
    return ""


_WANT_TEXT = ("string_type", "literal_error", "enum")


def _locate(loc: tuple[int | str, ...], plain: Any) -> tuple[list[str], list[str]]:
    """Return the keys of a pydantic location, less the tags of unions, and the keys beside the last one."""
    keys: list[str] = []
    node, siblings = plain, list(plain) if isinstance(plain, dict) else []
    for index, part in enumerate(loc):
        if isinstance(node, dict) and part in node:
            siblings = [str(name) for name in node]
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        elif index < len(loc) - 1 or not isinstance(node, dict):
            continue
        keys.append(str(part))
    return keys, siblings


class _translate:
    """Turn what Hydra and OmegaConf raise into one line for the person who wrote the words."""

    def __init__(self, composer: Composer, cfg: DictConfig | None) -> None:
        self.composer, self.cfg = composer, cfg

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Hydra raises ValueError and TypeError too for what it cannot read.
        if isinstance(error, Exception) and not isinstance(error, UserError):
            raise UserError(self._explain(error)) from error

    def _explain(self, error: BaseException) -> str:
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            group, _, name = str(error.missing_cfg_file).rpartition("/")
            known = [str(option) for option in error.options or []]
            choices = ", ".join(known) if len(known) <= MAX_SHOWN else f"{len(known)}, which `lmexp list` shows"
            return f"there is no {group or 'config'} '{name}'.{nearest(name, known)} Choices: {choices}"
        if isinstance(error, MissingMandatoryValue):
            key = str(error.full_key or error).removeprefix("Missing mandatory value: ")
            return f"{key} must be given, as in {key}=..."
        if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
            error = error.__cause__
        key = str(getattr(error, "full_key", None) or "")
        if key and type(error).__name__ in ("ConfigAttributeError", "ConfigKeyError"):
            return self.composer.unknown(key, self._nearest_key(key))
        first, *more = str(error).strip().replace(_IN_SWEEP_FILE, "").replace(f" in '{GROUP}/{CHOICE}'", "").split("\n")
        first = f"{first} {more[0].strip()}" if first.endswith(":") and more else first
        if f"'{GROUP}/{CHOICE}'" in str(error) and self.composer.sweep_file:
            first = f"{shown(self.composer.sweep_file)}: {first}"
        return f"{self.composer.place(key)}{key}: {first}" if key else first

    def _nearest_key(self, key: str) -> str:
        cfg = self.cfg
        if cfg is None:
            try:
                cfg = Composer(self.composer.roots)._compose({})
            except UserError:
                return ""
        known = [name for name in _dotted(cfg) if not name.startswith("sweep.") or key.startswith("sweep.")]
        return nearest(key, [*known, *self.composer._groups])


MISSING = "???"
"""OmegaConf's mark for a value that must be given."""


@dataclass(frozen=True)
class _Plain:
    """A composed config as nested mappings and lists."""

    content: Any
    has_interpolations: bool
    missing: frozenset[str]
    """The keys whose values must be given."""

    @classmethod
    def of(cls, cfg: DictConfig) -> "_Plain":
        """Return a composed config, unresolved."""
        content = OmegaConf.to_container(cfg, resolve=False)
        texts = dict(_texts(content))
        missing = frozenset(key for key, text in texts.items() if text == MISSING)
        return cls(content, any("${" in text for text in texts.values()), missing)


def _set_leaf(config: dict[str, Any], key: str, value: Any) -> bool:
    """Replace a leaf of nested mappings by a value; return False if that takes more than replacing a leaf."""
    is_leaf = value is None or isinstance(value, bool | int | float | str)
    if not is_leaf or (isinstance(value, str) and ("${" in value or value == MISSING)):
        return False
    *above, last = key.split(".")
    node: Any = config
    for part in above:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict | list):
        return False
    node[last] = value
    return True


def _copied(node: Any) -> Any:
    """Return a copy of nested mappings and lists."""
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node


_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""A null character, and halves of characters, as Python has them in names of files that are not UTF-8."""


def _texts(node: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in nested mappings and lists, each with its dotted key."""
    if isinstance(node, str):
        yield above, node
    elif isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, str | dict | list):
                yield from _texts(value, f"{above}.{key}".lstrip("."))


def _dotted(cfg: DictConfig, above: str = "") -> Iterator[str]:
    for key in map(str, cfg):
        name = above + key
        yield name
        if OmegaConf.is_dict(cfg._get_node(key)) and not OmegaConf.is_missing(cfg, key):
            yield from _dotted(cfg[key], f"{name}.")
