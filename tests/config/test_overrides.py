"""Overrides: paths and names of any script are read as they are, or the message shows how to quote them."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.overrides import parse_overrides, swept_values, written
from lmexp.errors import UserError

ROOTS = [paths.shipped_root()]
TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner, max_size=3))


def value_of(word: str):
    return parse_overrides([word])[0].value()


@given(value=VALUES)
def test_a_written_value_reads_back_as_it_was(value: object):
    assert value_of(f"a={written(value)}") == value
    assert swept_values(parse_overrides([f"a={written(value)},x"])[0]) == [value, "x"]


PATHS = [
    "数据/文本.txt",
    "Ωμέγα",
    "naïve.txt",
    "a=b.txt",
    "a#1.txt",
    "notes (1).txt",
    "a & b;c",
    "50%!",
    "~/x^y",
    "a<b>",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_needs_no_quotes(path: str):
    assert value_of(f"data.path={path}") == path
    assert Composer(ROOTS, words=["data=text", f"data.path={path}"]).config({}).data.path == path


def test_what_hydras_grammar_reads_keeps_its_meaning():
    given = {"1,2": [1, 2], "range(1,3)": [1, 2], "a,'ü=b'": ["a", "ü=b"], "choice(a,b)": ["a", "b"]}
    assert {text: swept_values(parse_overrides([f"a={text}"])[0]) for text in given} == given
    assert value_of("a=[1,{b:c}]") == [1, {"b": "c"}] and value_of("a=") == "" and value_of("a=1e3") == 1000.0


@pytest.mark.parametrize("value", ["ü,b", "[ü", "f(ü)", "it's", 'ü"', "{ü", "${ü", "数据,文本.txt"])
def test_a_value_that_could_mean_more_than_its_text_is_refused_with_the_quotes_to_write(value: str):
    with pytest.raises(UserError, match="put it in quotes: ") as caught:
        parse_overrides([f"data.path={value}"])
    (word,) = shlex.split(str(caught.value).split("put it in quotes: ")[1])
    assert parse_overrides([word])[0].value() == value


@pytest.mark.parametrize("word", ["model.n_layers", "=3", "", "a b=3", "ü=3", "--x=1"])
def test_a_word_without_a_key_is_no_override(word: str):
    with pytest.raises(UserError, match="is not an override: write key=value"):
        parse_overrides([word])


def test_deep_nesting_is_refused():
    with pytest.raises(UserError, match="nested too deeply"):
        parse_overrides(["a=" + "[" * 5000 + "]" * 5000])


def test_folders_files_and_choices_may_have_any_name(tmp_path: Path):
    for folder in ("2026", "my sweeps", "研究", "a=b,c", "x'y"):
        file = tmp_path / folder / "sweeps" / folder / f"{folder} 1.yaml"
        file.parent.mkdir(parents=True)
        (file.parent / "base.yaml").write_text("# @package _global_\nseed: 7\n")
        file.write_text("# @package _global_\ndefaults: [base, _self_]\nsweep: {grid: {model: ['Größe (1)']}}\n")
        choice = tmp_path / folder / "conf" / "model" / "Größe (1).yaml"
        choice.parent.mkdir(parents=True)
        choice.write_text("defaults: [gpt_nano, _self_]\nn_layers: 9\n")
        roots = paths.search_roots(tmp_path / folder)
        name, found = paths.find_sweep(f"{folder}/{folder} 1", roots)
        assert name == f"{folder}/{folder} 1" and found == file
        composer = Composer(roots, file)
        config = composer.config({"model": composer.sweep_spec().grid["model"][0]})
        assert (config.seed, config.model.n_layers) == (7, 9)
        with pytest.raises(UserError, match="there is no model 'gröse'"):
            Composer(roots, file, ["model=gröse"]).config({})
