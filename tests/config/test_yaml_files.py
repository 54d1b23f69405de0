"""YAML files: words that YAML 1.1 reads otherwise than people, files that are none, and files that grow."""

import os
from pathlib import Path

import pytest

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError

ROOTS = [paths.shipped_root()]
BOMB = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 11)
)
WRONG = {
    "a time": (
        "launcher:\n  minutes: 2:00:00\n",
        "x.yaml:2: launcher.minutes: YAML takes 2:00:00 for a number of base",
    ),
    "a time in a list": ("sweep: {grid: {budget.tokens: [1:30]}}", "base 60, 90: write the number"),
    "a time with a fraction": ("a: 1:20.5", "x.yaml:1: a: YAML takes 1:20.5 for a number of base 60, 80.5"),
    "an octal number": ("data: {field: 010}", "data.field: YAML takes 010 for an octal number, 8: write 10 for the"),
    "a key that is a word": ("\nlogger:\n  off: 1\n", "x.yaml:3: YAML takes the key off for true or false"),
    "a key that is nothing": ("~: 1", "YAML takes the key ~ for null"),
    "a key that is a list": ("[1, 2]: 1", "x.yaml:1: a key must be a word"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", "x.yaml:3: the key a stands twice"),
    "aliases that grow": (BOMB, "more than 200,000 values, with its aliases written out"),
    "an alias in itself": ("a: &a [*a]\n", "x.yaml:1: an alias that stands for something that it is a part of"),
    "deep nesting": ("[" * 20_000, "x.yaml:1: nested more than 100 levels deep"),
    "no YAML": ("a: b: 2", "x.yaml:1: not YAML: mapping values are not allowed"),
    "a control character": ("a: \x07", "x.yaml: not YAML: "),
    "a tag of Python's": ("a: !!python/object/apply:os.system [true]", "x.yaml:1: not YAML: could not determine a con"),
    "a date that is none": ("a: 2024-13-45", "x.yaml: not YAML: month must be in 1..12"),
    "no UTF-8": (b"a: caf\xe9", "x.yaml: not UTF-8 at byte 6"),
    "a large file": (b"# " + b"x" * 2_000_000, "x.yaml: cannot be read: it has more than 2,000,000 bytes"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_says_something_else_than_it_seems_is_refused_with_its_line(what: str, tmp_path: Path):
    content, said = WRONG[what]
    file = tmp_path / "x.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_yaml(file)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_words_and_numbers_as_people_write_them_are_read(tmp_path: Path):
    file = tmp_path / "x.yaml"
    file.write_text("\ufeff{a: '2:00:00', b: 1_000, c: 0, d: -1.5, e: '010', f: yes, g: 10:70, h: 0.5, 1: x}", "utf-8")
    given = {"a": "2:00:00", "b": 1000, "c": 0, "d": -1.5, "e": "010", "f": True, "g": "10:70", "h": 0.5, 1: "x"}
    assert read_yaml(file) == given


def test_what_is_no_regular_file_is_refused_before_it_is_read(tmp_path: Path):
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    reasons = {
        "folder": "it is a folder",
        "fifo": "it is a FIFO",
        "endless": "it is a device",
        "loop": "Too many levels",
    }
    for name, said in (reasons | {"nowhere": "No such file", "null\0": "no file can have this name"}).items():
        with pytest.raises(UserError, match=said):
            read_yaml(tmp_path / f"{name}.yaml")


def test_hydra_reads_a_users_configs_through_the_same_checks(tmp_path: Path):
    """A word that YAML takes for another value, wherever Hydra meets it: in a choice, in what the choice builds on."""
    folder = tmp_path / "conf" / "data"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("defaults: [base, _self_]\nvalidation: 0.1\n")
    for base, said in {
        "source: files\npath: x\nformat: txt\nfield: 007\n": "base.yaml:4: field: YAML takes 007 for an octal",
        "source: [files\n": "base.yaml:2: not YAML",
        "# @package a b c\nsource: files\n": "base.yaml: the comment at its top",
    }.items():
        (folder / "base.yaml").write_text(base)
        with pytest.raises(UserError, match=said):
            Composer([tmp_path, *ROOTS], words=["data=mine"]).config({})
    assert Composer([tmp_path, *ROOTS]).config({}).data.source == "stdlib"  # what is not chosen is not read


def test_on_and_off_in_keys_that_want_text_or_numbers_are_said_with_the_remedy(tmp_path: Path):
    file = tmp_path / "sweeps" / "mine.yaml"
    file.parent.mkdir()
    quotes = "YAML takes on, off, yes and no for true or false: put the word in quotes"
    for body, said in {
        "defaults: [{override /data: text}, _self_]\ndata: {path: no}\n": f"mine.yaml:2: data.path=False: .*{quotes}",
        "defaults: [{override /launcher: slurm}, _self_]\nlauncher: {options: {x: on}}": f"options.x=True: .*{quotes}",
        "logger: {mode: off}": f"mine.yaml:1: logger.mode=False: input should be 'offline'.*{quotes}",
        "sweep: {grid: {precision: [on, fp32]}}": f"mine.yaml:1: precision=true: {quotes}",
        "optim: {lr: on}": "mine.yaml:1: optim.lr=True: a number is expected, not true or false$",
        "optim: {betas: [on, 0.9]}": "optim.betas.0=True: a number is expected",
        "sweep: {seeds: yes}": "sweep.seeds=True: a number is expected",
        "sweep: {seeds: [yes, 1]}": "sweep.seeds.0=True: a number is expected",
        "sweep: {search: {trials: on, space: {seed: {low: 1, high: 3}}}}": "sweep.search.trials=True: a number",
        "tokenizer: {vocab_size: on}": "tokenizer.vocab_size=True: a number is expected",
        "data: {fingerprint: 1234}": "mine.yaml:1: data.fingerprint=1234: .*a text that looks like a number",
    }.items():
        file.write_text(body)
        composer = Composer(ROOTS, file, ["tokenizer=bpe"])
        with pytest.raises(UserError, match=said):
            spec = composer.sweep_spec()
            composer.config({key: values[0] for key, values in spec.grid.items()})
    file.write_text("data: {clean: {lowercase: yes}}")  # a key that wants true or false
    assert Composer(ROOTS, file).config({}).data.clean.lowercase is True
