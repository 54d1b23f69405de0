"""From words to a checked config: Hydra composes, the schema checks, and a mistake is said in one line.

Composing reads a dozen files and takes a tenth of a second, and a sweep's cells mostly differ in values:
so the choice of groups is composed once and kept, and values are set on a copy of it, with the function
that Hydra itself uses for them.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from pydantic import BaseModel, ValidationError

from lmexp.config import code, paths
from lmexp.config.base import is_tag
from lmexp.config.schema import RunConfig
from lmexp.config.sweeps import SweepSpec
from lmexp.errors import UserError, nearest

Values = dict[str, Any]
"""Keys with dots, or names of groups, and the values they are to have."""
S = TypeVar("S", bound=BaseModel)


def parse_overrides(words: list[str]) -> list[Override]:
    """Parse words in Hydra's override grammar. Raises UserError for the first that is not in it."""
    parser = OverridesParser.create()
    parsed = []
    for word in words:
        try:
            parsed.append(parser.parse_override(word))
        except HydraException:
            raise UserError(f"'{word}' is not an override: write key=value, as in model.n_layers=4") from None
    return parsed


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Put the Hydra of the user's program aside, if it has one: there is a single one in a process."""
    users = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = users  # another instance by now


def refuse_axes(overrides: list[str], instead: str) -> None:
    """Raise UserError for an override with several values, which `instead` takes."""
    for override in parse_overrides(overrides):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} names several runs; {instead} sweeps over them")


def allow_code(words: list[str], config_dir: Path | None = None) -> None:
    """Allow the code that a user's own words name, and that in the user's own folder of configs.

    Never pass words that were made from a run's config: that would allow whatever somebody else's run names.
    """
    named: set[str] = set()
    for override in parse_overrides([word for word in words if "_target_" in word or code.REMOTE_CODE in word]):
        values = swept_values(override) if override.is_sweep_override() else [override.value()]
        named.update(code.names_of_code([{override.key_or_group: value} for value in values]))
    code.allow(named, config_dir.resolve() if config_dir else None)


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Tell the words that set parts of the sweep itself from those that its runs get.

    Raises UserError for words that would have no effect, or another than they say.
    """
    of_sweep, of_runs = [], []
    for override in parse_overrides(words):
        word, key = override.input_line or "", override.key_or_group
        if key.split(".")[0] == "hydra":
            raise UserError(f"{word}: hydra.* has no effect; Hydra composes here, and lmexp launches")
        if key.split(".")[0] in ("run", "schema_version"):
            raise UserError(f"{word}: {key} is lmexp's own")
        if key.split(".")[0] != "sweep":
            of_runs.append(word)
        elif "." not in key or override.is_sweep_override() or not _sets_a_value(override):
            raise UserError(f"{word}: of a sweep, single keys can be set, as in sweep.seeds=3")
        else:
            of_sweep.append(word)
    return of_sweep, of_runs


def _sets_a_value(override: Override) -> bool:
    return not (override.is_add() or override.is_force_add() or override.is_delete())


def swept_values(override: Override) -> list[Any]:
    """Return the values of an override like `a=1,2` or `a=range(1,4)`, one for each cell."""
    parser, word, values = OverridesParser.create(), override.input_line, []
    try:
        for text in override.sweep_string_iterator():
            values.append(parser.parse_override(f"{override.key_or_group}={text}").value())
            if len(values) > MOST_VALUES:
                raise UserError(f"{word}: an axis has at most {MOST_VALUES:,} values")
    except (HydraException, TypeError, ValueError):
        raise UserError(f"{word}: write the values out, as in a=1,2 or a=range(1,4)") from None
    return values


MOST_VALUES = 10_000
MOST_SHOWN = 20
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


@dataclass
class Composer:
    """Composes configs from one set of roots, one sweep file or none, and the words of a command line."""

    roots: list[Path]
    sweep_file: Path | None = None
    words: list[str] = field(default_factory=list)
    _composed: dict[tuple[str, ...], DictConfig] = field(default_factory=dict, repr=False)
    _lacking: dict[tuple[str, ...], "Composer"] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.sweep_file is not None:
            _check_yaml(self.sweep_file)
        self._groups = paths.groups(self.roots)

    def sweep_spec(self) -> SweepSpec:
        """Return the study that the sweep file (and the words) describe."""
        cfg = self._compose({})
        with _translate(self, cfg):
            plain = OmegaConf.to_container(cfg, resolve=False)
            node = OmegaConf.to_container(cfg["sweep"], resolve=True) if OmegaConf.is_dict(cfg.get("sweep")) else None
        if node is None:
            given = plain.get("sweep") if isinstance(plain, dict) else None
            raise UserError(f"{self.place('sweep')}sweep={given!r}: expected a mapping with grid, zip, points or seeds")
        return self._check(SweepSpec, node, ("sweep",))

    def config(self, values: Values) -> RunConfig:
        """Return the checked config of one cell. Raises UserError with one line."""
        cfg = self._compose(values)
        with _translate(self, cfg):
            plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        assert isinstance(plain, dict)
        plain.pop("sweep", None)
        for section, values in plain.items():
            for target in code.names_of_code(values):
                code.check_trusted(target, f"{section!s}._target_")
        return self._check(RunConfig, plain, ())

    def _compose(self, values: Values) -> DictConfig:
        words = parse_overrides(self.words)
        for word in words:
            if word.key_or_group in self._groups and not _sets_a_value(word):
                raise UserError(f"{word.input_line}: a group has one choice; write {word.key_or_group}=...")
        chosen = [word for word in words if self._is_structural(word)]
        group_values = {key: value for key, value in values.items() if key in self._groups}
        group_words = tuple(
            [word.input_line or "" for word in chosen if word.key_or_group not in group_values]
            + [f"{group}={choice}" for group, choice in group_values.items()]
        )
        if group_words not in self._composed:
            self._composed[group_words] = self._compose_groups(group_words)
        cfg = copy.deepcopy(self._composed[group_words])
        plain = {word.key_or_group: word.value() for word in words if not self._is_structural(word)}
        for key, value in (plain | {k: v for k, v in values.items() if k not in self._groups}).items():
            with _translate(self, cfg):
                # What goes into a mapping is the schema's to check: some are open.
                OmegaConf.update(cfg, key, value, merge=True, force_add=isinstance(value, dict))
        return cfg

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

    def _compose_groups(self, words: tuple[str, ...]) -> DictConfig:
        *users, shipped = [f"file://{root / paths.CONF}" for root in self.roots if (root / paths.CONF).is_dir()]
        overrides, search = list(words), [shipped]  # never empty: Hydra then looks at the whole path anew
        if self.sweep_file is not None:
            # The folder above the sweeps' becomes a place to search, and the sweep file a choice in a group.
            name, folder = self.sweep_file.stem, self.sweep_file.parent
            search.append(f"file://{folder.parent}")
            overrides.insert(0, f"+{folder.name}@_global_={_quote(name)}")
        overrides.insert(0, f"hydra.searchpath=[{','.join(map(_quote, search))}]")
        with (
            _own_hydra(),
            _translate(self, None),
            initialize_config_dir(shipped.removeprefix("file://"), version_base="1.3"),
        ):
            path = GlobalHydra.instance().config_loader().get_search_path()
            for folder_url in reversed(users):  # before ours: a user's choice hides a shipped one of its name
                path.prepend("user", folder_url, SearchPathQuery(provider="main"))
            return compose("config", overrides=overrides)

    def _check(self, schema: type[S], plain: Any, above: tuple[str, ...]) -> S:
        try:
            return schema.model_validate(plain)
        except ValidationError as error:
            raise UserError(self._explain_validation(error, plain, above)) from None

    def _explain_validation(self, error: ValidationError, plain: Any, above: tuple[str, ...]) -> str:
        first = error.errors(include_url=False)[0]
        keys, siblings = _locate(tuple(part for part in first["loc"] if not is_tag(part)), plain)
        key = ".".join([*above, *keys])
        if first["type"] == "extra_forbidden":
            return self.unknown(key, nearest(keys[-1], [name for name in siblings if name != keys[-1]]))
        if first["type"] == "missing":
            return f"{self.place(key)}{key} is missing"
        said = first["msg"][0].lower() + first["msg"][1:]
        value = first["input"]
        shown = "" if isinstance(value, dict | list) else f"={value}"
        if first["type"] == "union_tag_invalid":
            context = first["ctx"]
            tag = context["discriminator"].split(" | ")[-1].strip("'")  # a field, and the name that YAML has for it
            return f"{key}.{tag}={context['tag']}: expected one of {context['expected_tags']}"
        return f"{self.place(key)}{key}{shown}: {said}"

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
        return f"{self.place(key)}{key} is not a key of the config.{hint}"

    def place(self, key: str) -> str:
        """Return `sweeps/demo.yaml: ` when the sweep file names `key`, else nothing: it was a word."""
        if self.sweep_file is None or any(word.key_or_group == key for word in parse_overrides(self.words)):
            return ""
        content = yaml.safe_load(self.sweep_file.read_text(encoding="utf-8")) or {}
        sweep = content.get("sweep") or {}
        axes = {*(sweep.get("grid") or {}), *(sweep.get("zip") or {})}
        node: Any = content
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) and part in node else None
            if node is None:
                break
        found = node is not None or key in axes
        return f"{_shown(self.sweep_file)}: " if found else ""


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
            shown = ", ".join(known) if len(known) <= MOST_SHOWN else f"{len(known)}, which `lmexp list` shows"
            return f"there is no {group or 'config'} '{name}'.{nearest(name, known)} Choices: {shown}"
        if isinstance(error, MissingMandatoryValue):
            key = str(error.full_key or error).removeprefix("Missing mandatory value: ")
            return f"{key} must be given, as in {key}=..."
        if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
            error = error.__cause__
        key = str(getattr(error, "full_key", None) or "")
        if key and type(error).__name__ in ("ConfigAttributeError", "ConfigKeyError"):
            return self.composer.unknown(key, self._nearest_key(key))
        first = str(error).strip().split("\n", 1)[0]
        return f"{self.composer.place(key)}{key}: {first}" if key else first

    def _nearest_key(self, key: str) -> str:
        cfg = self.cfg
        if cfg is None:
            try:
                cfg = Composer(self.composer.roots)._compose({})
            except UserError:
                return ""
        return nearest(key, [*_dotted(cfg), *self.composer._groups])


def _dotted(cfg: DictConfig, above: str = "") -> Iterator[str]:
    for key in map(str, cfg):
        name = above + key
        yield name
        if OmegaConf.is_dict(cfg._get_node(key)) and not OmegaConf.is_missing(cfg, key):
            yield from _dotted(cfg[key], f"{name}.")


def _check_yaml(file: Path) -> None:
    """Raise UserError, with file and line, for a sweep file that is not a YAML mapping."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise UserError(f"{_shown(file)}:{line}: not YAML: {error.problem}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{_shown(file)}: not UTF-8 at byte {error.start}") from None
    if not isinstance(content, dict):
        raise UserError(f"{_shown(file)}: a sweep file is a mapping with a key `sweep`")


def _shown(file: Path) -> str:
    """Return a path as its reader would write it: relative to the current folder where that is shorter."""
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
