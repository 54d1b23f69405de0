"""Points are read right, or refused with their place; what is no result is counted."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.scaling.readers import MAX_POINTS, points_of_csv, points_of_frame, points_of_study
from lmexp.analysis.scaling.states import FINISHED, UNFINISHED
from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.runs.state import STATES
from tests.report.synthetic import write_study

HEADING = "params,tokens,flops,loss\n"
GOOD = "1e6,1e8,6e14,3.5\n2e6,1e8,1.2e15,3.2\n"


def read(folder: Path, text: str | bytes, name: str = "points.csv", scale: dict[str, float] | None = None, **columns):
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return points_of_csv(file, columns, scale)


def test_a_product_of_large_integers_does_not_overflow(tmp_path: Path):
    points = read(tmp_path, "params,tokens,loss\n16000000000,300000000000,2.1\n")
    assert points.flops[0] == 6 * 16e9 * 300e9


@pytest.mark.parametrize(
    "heading",
    [
        "N,D,L",
        "n_params,tokens,loss",
        "Parameters,Training Tokens,val_loss",
        "params;tokens;loss",
        "params\ttokens\tloss",
    ],
)
def test_usual_names_and_separators_are_understood(tmp_path: Path, heading: str):
    separator = next(mark for mark in ",;\t" if mark in heading)
    points = read(tmp_path, f"{heading}\n{separator.join(['1e6', '1e8', '3.5'])}\n")
    assert (points.params[0], points.tokens[0], points.loss[0]) == (1e6, 1e8, 3.5)


def test_of_params_tokens_and_flops_two_are_enough_and_it_is_said(tmp_path: Path):
    points = read(tmp_path, "N,C,loss\n1e6,6e14,3.5\n")
    assert points.tokens[0] == pytest.approx(1e8) and "D = C/6N" in points.source
    points = read(tmp_path, "D,C,loss\n1e8,6e14,3.5\n")
    assert points.params[0] == pytest.approx(1e6) and "N = C/6D" in points.source
    points = read(tmp_path, "N,D,loss\n1e6,1e8,3.5\n")
    assert points.flops[0] == 6e14 and "C = 6ND" in points.source


def test_a_named_column_and_6ND_prevail(tmp_path: Path):
    text = "N,D,C,loss,other\n1e6,1e8,9e14,3.5,2.5\n"
    assert "9.00 N D" in read(tmp_path, text).source
    points = read(tmp_path, text, loss="other", flops="6ND")
    assert points.loss[0] == 2.5 and points.flops[0] == 6e14


def test_missing_and_infinite_numbers_are_left_out_and_counted(tmp_path: Path):
    points = read(tmp_path, f"{HEADING}{GOOD}1e6,1e8,6e14,nan\n1e6,1e8,6e14,\n\n1e6,1e8,6e14,inf\n,1e8,6e14,3\n")
    assert len(points) == 2
    assert points.left_out == {"no loss": 2, "infinite loss": 1, "no params": 1}


def test_what_is_not_done_is_left_out_by_its_state(tmp_path: Path):
    points = read(tmp_path, "n_params,tokens,loss,state\n1e6,1e8,3.5,done\n1e6,1e8,9,diverged\n1e6,1e8,,failed\n")
    assert len(points) == 1 and points.left_out == {"diverged": 1, "failed": 1}


@pytest.mark.parametrize(
    ("heading", "done", "others"),
    [
        ("State", "finished", ["crashed", "running", "killed", "preempting"]),  # W&B
        ("status", "FINISHED", ["FAILED", "KILLED", "RUNNING", "SCHEDULED"]),  # MLflow
        (
            "Job State",
            "COMPLETED",
            ["CANCELLED by 1000", "CANCELLED+", "OUT_OF_ME+", "OUT_OF_MEMORY", "NODE_FAIL", "TIMEOUT"],
        ),
        ("STATE", "done", ["diverged", "oom", "preempted", "cancelled", "queued"]),  # lmexp
    ],
)
def test_states_of_other_tools_are_understood_under_headings_in_any_case(tmp_path: Path, heading, done, others):
    rows = "".join(f"2e6,1e8,9.5,{word}\n" for word in others)
    points = read(tmp_path, f"n_params,tokens,loss,{heading}\n1e6,1e8,3.5,{done}\n{rows}")
    assert points.params.tolist() == [1e6] and points.left_out == dict.fromkeys(others, 1)


def test_a_state_that_is_not_known_is_refused_with_the_known_ones(tmp_path: Path):
    with pytest.raises(UserError, match=r"line 3: State is 'sleeping'.* Finished: .*finished.* Not finished: "):
        read(tmp_path, "n_params,tokens,loss,State\n1e6,1e8,3.5,finished\n1e6,1e8,3,sleeping\n")


def test_every_state_of_lmexp_is_known():
    assert set(STATES) <= FINISHED | UNFINISHED and not FINISHED & UNFINISHED


def test_units_precisions_and_costs_are_read_under_headings_in_any_case(tmp_path: Path):
    points = read(
        tmp_path,
        "n_params,tokens,loss,Run ID,Precision,Train Seconds\n1e6,1e8,3.5,a,bf16,7\n1e6,2e8,3.4,a,fp8,9\n",
    )
    assert points.n_units == 1 and points.precision.tolist() == ["bf16", "fp8"]
    assert points.costs["train_seconds"].tolist() == [7, 9]


def test_rows_are_kept_by_an_expression(tmp_path: Path):
    file = tmp_path / "points.csv"
    file.write_text("params,tokens,loss,family\n1e6,1e8,3.5,gpt\n2e6,1e8,3.2,moe\n")
    assert points_of_csv(file, where="family == 'gpt'").params.tolist() == [1e6]
    with pytest.raises(UserError, match=r"no row of .* meets --where tokens > 1e9"):
        points_of_csv(file, where="tokens > 1e9")


def test_milestones_of_one_run_are_one_unit(tmp_path: Path):
    points = read(tmp_path, "n_params,tokens,loss,run_id\n1e6,1e8,3.5,a\n1e6,2e8,3.4,a\n2e6,1e8,3.3,b\n")
    assert points.n_units == 2


WRONG = {
    "empty": ("", "points.csv is empty"),
    "only a heading": (HEADING, "points.csv has no rows"),
    "text": (f"{HEADING}{GOOD}1e6,lots,6e14,3\n", "line 4: tokens is 'lots', no number"),
    "text after an empty line": (f"{HEADING}\n{GOOD}1e6,lots,6e14,3\n", "line 5: tokens is 'lots'"),
    "truth": (f"{HEADING}1e6,1e8,6e14,true\n", "'loss' holds true and false"),
    "a negative loss": (f"{HEADING}{GOOD}1e6,1e8,6e14,-1\n", "line 4: loss is -1; it must be above 0"),
    "millions": (f"{HEADING}{GOOD}1.5,1e8,6e14,3\n", "line 4: params is 1.5; is it in millions or billions?"),
    "billions of tokens": (f"{HEADING}{GOOD}1e6,0.1,6e14,3\n", "line 4: tokens is 0.1; is it in millions"),
    "mixed units": (f"{HEADING}{GOOD}1e6,1e8,6e17,3\n", "line 4: FLOPs are 6e+03 N D"),
    "no loss": ("params,tokens,score\n1e6,1e8,3\n", "has no column for the loss; name it with --loss"),
    "no size": ("params,loss\n1e6,3\n", "needs two of params, tokens and flops"),
    "all diverged": ("n_params,tokens,loss,state\n1e6,1e8,3,diverged\n", "has no finished row with numbers to fit"),
    "no finite loss": (f"{HEADING}1e6,1e8,6e14,nan\n", "has no finished row with numbers to fit: 1 no loss"),
    "no text": (b"\xff\xfe\x80\x81,\n", "points.csv is no text in UTF-8"),
    "too many fields": (f"{HEADING}1e6,1e8,6e14,3,4,5\n", "rows of more fields than its heading"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_points_are_refused_with_their_place(tmp_path: Path, name: str):
    text, message = WRONG[name]
    with pytest.raises(UserError) as refused:
        read(tmp_path, text)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_not_there_and_a_column_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match="there is no file"):
        points_of_csv(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"has no column 'los'. Did you mean 'loss'\?"):
        read(tmp_path, HEADING + GOOD, loss="los")


def test_accuracy_is_no_loss(tmp_path: Path):
    with pytest.raises(UserError, match="higher accuracy is better"):
        read(tmp_path, "params,tokens,accuracy\n1e6,1e8,0.5\n", loss="accuracy")


def test_more_rows_than_a_fit_takes_are_refused_with_the_limit():
    frame = pd.DataFrame({"params": np.full(MAX_POINTS + 1, 1e6), "tokens": 1e8, "loss": 3.0})
    with pytest.raises(UserError, match="10,001 rows, a fit takes at most 10,000"):
        points_of_frame(frame)


def test_one_loss_that_is_hardly_nats_is_warned_of(tmp_path: Path):
    assert "hardly nats per token" in read(tmp_path, f"{HEADING}{GOOD}1e6,1e8,6e14,45\n").warnings[0]


def test_parquet_is_read_as_csv_is(tmp_path: Path):
    frame = pd.DataFrame({"params": [1e6, 2e6], "tokens": [1e8, 1e8], "loss": [3.5, 3.2]})
    frame.to_parquet(tmp_path / "points.parquet")
    assert points_of_csv(tmp_path / "points.parquet").loss.tolist() == [3.5, 3.2]


def test_a_study_gives_its_finished_runs_and_counts_the_others(tmp_path: Path):
    points = points_of_study(load_study([write_study(tmp_path)]))
    assert len(points) == points.n_units == 8
    assert points.left_out == {"failed": 1, "diverged": 1}
    assert points.precision is not None and set(points.precision) == {"fp32", "bf16"}
    assert {"train_seconds", "wall_seconds"} <= set(points.costs)


def test_the_floor_of_the_loss_is_read_if_all_rows_have_one(tmp_path: Path):
    rows = "params,tokens,loss,bits_per_byte,loss_floor\n1e6,1e8,3,1.5,2\n2e6,1e8,2.8,1.4,{}\n"
    assert read(tmp_path, rows.format(2)).floor == 2
    assert read(tmp_path, rows.format(2), loss="bits_per_byte").floor == 1
    assert read(tmp_path, rows.format(2.1)).floor is read(tmp_path, rows.format("")).floor is None
