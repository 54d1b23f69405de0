"""A run is found by its directory, by its name, or by a part that only it has."""

import shutil
from pathlib import Path

import pytest

from lmexp.config.identity import folder_name
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.runs.find import find_run, runs_of, sweep_folder
from lmexp.runs.manifest import Cell, Manifest, write_manifest
from tests.report.synthetic import config

CONFIG = config("gpt_nano", 2, "fp32")


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for name in ("first/nano-fp32-aa11", "first/nano-bf16-bb22", "second/nano-fp32-cc33", "second/nano-fp32-cc33-x"):
        RunDir.create(tmp_path / name, CONFIG)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("nano-bf16-bb22", "nano-bf16-bb22"),
        ("bb22", "nano-bf16-bb22"),
        ("first/nano-fp32", "nano-fp32-aa11"),
        ("nano-fp32-cc33", "nano-fp32-cc33"),  # the whole name of one is the beginning of another
    ],
)
def test_a_name_or_a_part_that_one_run_has_finds_it(outputs: Path, word: str, name: str):
    assert find_run(word, outputs).name == name


def test_a_path_is_taken_as_it_is(outputs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(outputs / "first")
    assert find_run("nano-fp32-aa11", outputs / "second").path == outputs / "first" / "nano-fp32-aa11"


def test_a_part_that_several_runs_have_names_them(outputs: Path):
    RunDir(outputs / "second" / "nano-fp32-cc33").update_state(started=1.0)
    said = (
        "'fp32' names 3 runs; write one name in full, the newest first: second/nano-fp32-cc33, first/nano-fp32-aa11, "
    )
    with pytest.raises(UserError, match=f"^{said}second/nano-fp32-cc33-x$"):
        find_run("fp32", outputs)


def test_the_whole_name_before_the_hash_comes_before_a_part_of_other_names(outputs: Path):
    RunDir.create(outputs / "first" / "nano-fp32-l4-dd44", CONFIG)
    assert find_run("first/nano-fp32", outputs).name == "nano-fp32-aa11"


@pytest.mark.parametrize("name", ["a", "A"])
def test_a_sweep_of_one_run_is_found_by_its_name_although_other_names_contain_it(outputs: Path, name: str):
    RunDir.create(outputs / "a" / "nano-ee55", CONFIG)
    assert find_run(name, outputs).name == "nano-ee55"
    RunDir.create(outputs / "first" / "a-ff66", CONFIG)
    assert find_run(name, outputs).name == "a-ff66", "the name of a run comes before that of a sweep"


def test_the_runs_of_the_named_sweep_are_those_that_are_shown_if_it_has_several(outputs: Path):
    RunDir.create(outputs / "third" / "second-nano-aa99", CONFIG)
    with pytest.raises(UserError, match=r"^'second' names 2 runs; .*: second/nano-fp32-cc33, second/nano-fp32-cc33-x$"):
        find_run("second", outputs)
    RunDir(outputs / "second" / "nano-fp32-cc33").final.mkdir(parents=True)
    RunDir(outputs / "third" / "second-nano-aa99").final.mkdir(parents=True)
    assert find_run("second", outputs, is_finished=True).name == "nano-fp32-cc33"


def test_a_sweep_whose_run_another_sweep_ran_first_stands_for_it(outputs: Path):
    cells = [Cell(run_id="aa11", path="../first/nano-fp32-aa11"), Cell(run_id="gone", path="gone")]
    (outputs / "nano").mkdir()
    write_manifest(outputs / "nano", Manifest(name="nano", cells=cells))
    assert find_run("nano", outputs).path.resolve() == outputs / "first" / "nano-fp32-aa11"


def test_of_several_runs_the_only_finished_one_is_meant_by_who_uses_it(outputs: Path):
    RunDir(outputs / "second" / "nano-fp32-cc33-x").final.mkdir(parents=True)
    assert find_run("second/nano", outputs, is_finished=True).name == "nano-fp32-cc33-x"
    with pytest.raises(UserError, match="names 2 runs"):
        find_run("second/nano", outputs)  # a log may be that of a failed one


@pytest.mark.parametrize("name", ["tagB", "TAGB", "tagb", "Tag b"])
def test_a_name_finds_the_folder_that_it_was_made_into(tmp_path: Path, name: str):
    made = tmp_path / folder_name(name)
    RunDir.create(made / "nano-fp32-aa11", CONFIG)
    assert sweep_folder(name, tmp_path) == made
    assert runs_of(sweep_folder(name, tmp_path))[0] == find_run("nano-FP32", tmp_path)
    assert sweep_folder("other", tmp_path) == tmp_path / "other"
    assert sweep_folder(str(made), tmp_path / "elsewhere") == made


def test_a_name_of_bytes_that_are_not_utf_8_is_that_of_no_sweep(outputs: Path):
    with pytest.raises(UserError, match=r"no sweep .* was started"):
        runs_of(sweep_folder(b"\xff".decode("utf-8", "surrogateescape"), outputs))


@pytest.mark.parametrize("word", [".", "..", "-", "_", "", " ", "/", "./"])
def test_a_word_without_a_letter_is_no_part_of_a_name(outputs: Path, word: str):
    shutil.rmtree(outputs / "second")
    shutil.rmtree(outputs / "first" / "nano-bf16-bb22")  # one run is left, whose name has dots and dashes
    (outputs / "first" / "nano-fp32-aa11").rename(outputs / "first" / "nano_lr0.1-fp32-aa11")
    with pytest.raises(UserError, match="is neither a run directory nor a part of a run's name"):
        find_run(word, outputs)


def test_an_unknown_name_gets_the_nearest(outputs: Path):
    with pytest.raises(UserError, match="Did you mean 'nano-bf16-bb22'"):
        find_run("nano-bf16-bb23", outputs)


def test_the_runs_of_a_sweep_are_those_of_its_manifest_wherever_they_lie(outputs: Path):
    cells = [Cell(run_id="cc33", path="../second/nano-fp32-cc33"), Cell(run_id="aa11", path="nano-fp32-aa11")]
    write_manifest(outputs / "first", Manifest(name="first", cells=cells))
    assert [run.path.resolve() for run in runs_of(outputs / "first")] == [
        outputs / "second" / "nano-fp32-cc33",
        outputs / "first" / "nano-fp32-aa11",
    ]


def test_without_a_manifest_every_run_in_the_folder_belongs(outputs: Path):
    assert [run.name for run in runs_of(outputs / "first")] == ["nano-bf16-bb22", "nano-fp32-aa11"]


def test_a_sweep_that_was_not_started_gets_the_nearest(outputs: Path):
    with pytest.raises(UserError, match="Did you mean 'second'"):
        runs_of(outputs / "secnd")
