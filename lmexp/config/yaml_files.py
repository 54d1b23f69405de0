"""YAML files, read with care: every file that a user or a stranger wrote passes through here, Hydra's reading included.

YAML 1.1, which PyYAML and Hydra read, takes some words for other values than people mean: `2:00:00` is 7200 (base 60),
`010` is 8 (octal), and a key `on` is true. Such words are errors here, with the file, the line and how to write them.
Aliases, nesting and size are limited, because a few lines of aliases can stand for gigabytes.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from lmexp.errors import UserError
from lmexp.files import read_bytes

MAX_BYTES = 2_000_000
MAX_DEPTH = 100
MAX_VALUES = 200_000
"""Values in a file, with every alias written out."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_OCTAL = re.compile(r"[-+]?0[0-7_]+")


def read_yaml(file: Path) -> Any:
    """Return the content of a YAML file. Raises UserError, with file and line, for one that cannot be read."""
    try:
        return yaml.load(yaml_text(file), Loader=_Loader)  # a safe loader
    except (yaml.YAMLError, ValueError) as error:
        raise _not_yaml(error, file) from None


def yaml_text(file: Path) -> str:
    """Return the text of a YAML file whose values all mean what they look like.

    Raises UserError, with file and line, if the file is not regular, large, not UTF-8, not YAML, or holds a word that
    YAML takes for something else, a key twice, or aliases that grow out of bounds.
    """
    try:
        text = read_bytes(file, MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{shown(file)}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(file)}: not UTF-8 at byte {error.start}") from None
    try:
        _check_depth(text, file)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, file) from None
    if root is not None:
        _check_node(root, file, "", {})
    return text


def without_key(text: str, key: str) -> str:
    """Return a text of YAML without one key of its top-level mapping and what it holds; all other text stays.

    The key is the one that YAML reads, however it is written. A comment that stands in the first column before the
    next key stays with that key. Raises ValueError if the rest cannot stand alone, as if it uses an anchor of what is
    left out.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)  # whose marks are characters of the text
    if not isinstance(root, yaml.MappingNode):
        return text
    pairs = root.value
    at = next((i for i, (name, _) in enumerate(pairs) if name.value == key), None)
    if at is None:
        return text
    starts = [name.start_mark.index for name, _ in pairs]
    start, end = starts[at], starts[at + 1] if at + 1 < len(pairs) else len(text)
    if root.flow_style:
        if at + 1 == len(pairs):
            start, end = pairs[at - 1][1].end_mark.index if at else start, pairs[at][1].end_mark.index
    else:
        lines = text.splitlines(keepends=True)
        first = pairs[at][0].start_mark.line
        last = pairs[at + 1][0].start_mark.line if at + 1 < len(pairs) else len(lines)
        while at + 1 < len(pairs) and last > first + 1 and lines[last - 1].startswith("#"):
            last -= 1
        start, end = (len("".join(lines[:line])) for line in (first, last))
    rest = text[:start] + text[end:]
    expected = {name: value for name, value in yaml.load(text, Loader=_Loader).items() if name != key}
    try:
        is_same = (yaml.load(rest, Loader=_Loader) or {}) == expected
    except yaml.YAMLError:
        is_same = False
    if not is_same:
        raise ValueError(f"what is left without {key} is not the same without it")
    return rest


def line_of(file: Path, keys: list[str]) -> int | None:
    """Return the line on which nested keys, or numbers of items, stand in a YAML file; None if they do not.

    An item 0 may stand in the file without its list.
    """
    node, line = yaml.compose(yaml_text(file), Loader=_Loader), None
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and key.isdecimal() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        entry = next((pair for pair in pairs if pair[0].value == key), None)
        if entry is None and key == "0":
            continue
        if entry is None:
            return None
        line, node = entry[0].start_mark.line + 1, entry[1]
    return line


def shown(file: Path) -> str:
    """Return a path as its reader would write it: relative to the current folder if it lies in it."""
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def _not_yaml(error: Exception, file: Path) -> UserError:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    reason = getattr(error, "problem", None) or str(error).split("\n", 1)[0]
    return UserError(f"{shown(file)}{line}: not YAML: {reason}")


def _line(part: yaml.Node | yaml.Event) -> int:
    return part.start_mark.line + 1 if part.start_mark else 0


def _check_depth(text: str, file: Path) -> None:
    """Raise UserError for nesting that would exhaust the stack of whatever reads the file."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise UserError(f"{shown(file)}:{_line(event)}: nested more than {MAX_DEPTH} levels deep")


def _check_node(node: yaml.Node, file: Path, key: str, sizes: dict[int, int | None]) -> int:
    """Return how many values a node holds, with aliases written out. Raises UserError for the first that is wrong."""
    place = f"{shown(file)}:{_line(node)}: "
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise UserError(f"{place}an alias that stands for something that it is a part of")
        return size
    sizes[id(node)] = None
    total = 1
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for name, value in node.value:
            _check_key(name, names, file)
            total += _check_node(name, file, key, sizes)
            total += _check_node(value, file, f"{key}.{name.value}".lstrip("."), sizes)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_check_node(item, file, key, sizes) for item in node.value)
    elif isinstance(node, yaml.ScalarNode):
        _check_scalar(node, place, key)
    if total > MAX_VALUES:
        raise UserError(f"{place}more than {MAX_VALUES:,} values, with its aliases written out")
    sizes[id(node)] = total
    return total


def _check_key(name: yaml.Node, names: set[str], file: Path) -> None:
    place = f"{shown(file)}:{_line(name)}: "
    if not isinstance(name, yaml.ScalarNode):
        raise UserError(f"{place}a key must be a word, not a list or a mapping")
    if name.tag in (f"{_TAG}bool", f"{_TAG}null"):
        meaning = "null" if name.tag == f"{_TAG}null" else "true or false"
        raise UserError(f"{place}YAML takes the key {name.value} for {meaning}: write it in quotes, '{name.value}'")
    if name.value in names and name.tag != f"{_TAG}merge":
        raise UserError(f"{place}the key {name.value} stands twice in one mapping")
    names.add(name.value)


def _check_scalar(node: yaml.ScalarNode, place: str, key: str) -> None:
    """Raise UserError for a number of base 60 or 8 that is not written as one."""
    if node.style in ("'", '"', "|", ">") or node.tag not in (f"{_TAG}int", f"{_TAG}float"):
        return
    said = f"{place}{key}: " if key else place
    if ":" in node.value:
        raise UserError(
            f"{said}YAML takes {node.value} for a number of base 60, {_in_base_60(node.value)}: write the number that "
            f"you mean, or a text in quotes, '{node.value}'"
        )
    if node.tag == f"{_TAG}int" and _OCTAL.fullmatch(node.value):
        digits = node.value.replace("_", "")
        raise UserError(
            f"{said}YAML takes {node.value} for an octal number, {int(digits, 8)}: write {int(digits)} for the number, "
            f"or a text in quotes, '{node.value}'"
        )


def _in_base_60(text: str) -> str:
    total = 0.0
    for part in text.replace("_", "").lstrip("+-").split(":"):
        total = total * 60 + float(part)
    return f"{'-' if text.startswith('-') else ''}{total:g}"
