"""What the page shows of a run's answers: its own task's confusion matrix, spans and examples, and nothing damaged."""

import json

import pytest

from lmexp.report.page.answers import MAX_CHARACTERS, MAX_EXAMPLES, answers
from lmexp.runs.directory import RunDir
from lmexp.runs.predictions import write_predictions
from lmexp.runs.scores import add_scores


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path)
    run.write_record([{"run_id": "a", "task": "classify"}])
    return run


def line(number: int, is_right: bool) -> dict:
    return {"input": f"text {number}", "gold": "a", "guess": "a" if is_right else "b", "scores": {}}


def test_the_runs_own_confusion_matrix_is_shown_and_wrong_examples_come_first(run):
    add_scores(run, "classify", {}, {"labels": ["a", "b"], "confusion": [[3, 1], [0, 0]], "about": {}})
    add_scores(run, "classify-on-abc", {}, {"labels": ["a", "b"], "confusion": [[9, 9], [9, 9]]})
    long = {"input": ["x" * 400, "y"], "gold": ["O", "O"], "guess": ["O", "B-A"], "scores": [1.0, 0.5]}
    write_predictions(run, iter([line(0, True), line(1, True), line(2, True), line(3, False), long]))
    shown = answers(run)
    assert shown["confusion"] == {"labels": ["a", "b"], "counts": [[3, 1], [0, 0]]}
    assert [example["input"][:6] for example in shown["examples"]] == ["text 3", "xxxxxx", "text 0", "text 1", "text 2"]
    assert len(shown["examples"]) == MAX_EXAMPLES and len(shown["examples"][1]["input"]) <= MAX_CHARACTERS + 2
    assert shown["examples"][1]["guess"] == "O B-A"


@pytest.mark.parametrize("damaged", ["", "{", "[]\n", "{}\n", '{"input": 1}\n', "\x00\n"])
def test_damaged_files_show_nothing(run, damaged):
    (run.path / "predictions.jsonl").write_text(damaged)
    (run.path / "scores.json").write_text(damaged)
    assert answers(run) == {}


def test_without_predictions_there_is_no_file_and_an_earlier_one_is_replaced_whole(run):
    write_predictions(run, iter(()))
    assert not (run.path / "predictions.jsonl").exists()
    write_predictions(run, iter([line(0, True)] * 3))

    def fails():
        yield line(1, True)
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_predictions(run, fails())
    assert len((run.path / "predictions.jsonl").read_text().splitlines()) == 3
    assert [json.loads(each)["input"] for each in (run.path / "predictions.jsonl").open()] == ["text 0"] * 3
    assert sorted(path.name for path in run.path.iterdir()) == ["predictions.jsonl", "record.json"]
