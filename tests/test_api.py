"""lmexp as a notebook uses it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmexp
from lmexp.errors import UserError
from lmexp.runs.record import COLUMNS
from tests.report.synthetic import QUESTION, write_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("outputs"))


def test_importing_it_is_light_and_a_study_needs_no_torch(folder):
    code = (
        "import sys, lmexp; assert not {'pandas', 'numpy', 'torch'} & sys.modules.keys(); "
        f"df = lmexp.load({str(folder)!r}); lmexp.frontier(df); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_study_is_a_frame_with_its_question_and_units(folder):
    df = lmexp.load(folder)
    assert len(df) == 10 and df.attrs["question"] == QUESTION and df.attrs["axes"]["model.n_layers"] == [2, 4]
    assert df.attrs["units"]["loss"] == "nats" and df.attrs["units"]["dollars"] == "dollars"
    assert df[df["state"] == "done"].groupby("precision")["loss"].mean().round(3).to_dict() == {
        "bf16": 2.81,
        "fp32": 2.8,
    }
    assert len(lmexp.load(str(folder), where="model.n_layers == 4 and state == 'done'")) == 4


def test_every_column_is_told_of_in_the_docstring():
    text = lmexp.load.__doc__.replace("`_", "`flops_per_token_")
    missing = [name for name in COLUMNS if not (f"{name} " in text or f"{name}`" in text)]
    assert missing == []


def test_the_frontier_of_any_frame_keeps_its_index():
    df = pd.DataFrame({"f1": [0.5, 0.6, 0.4], "latency_ms": [1.0, 2.0, 3.0]}, index=["a", "b", "c"])
    assert df[lmexp.frontier(df, "f1", "latency_ms")].index.tolist() == ["a", "b"]
    df["mine"] = [1, 2, 3]
    assert lmexp.frontier(df, "mine", "latency_ms").tolist() == [True, False, False]
    assert lmexp.frontier(df, "mine", "latency_ms", maximize=["mine"]).all()
    with pytest.raises(UserError, match="neither a quality nor a cost"):
        lmexp.frontier(df, "mine", "latency_ms", maximize=["f1"])


def test_a_law_is_fitted_to_any_frame(tmp_path):
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e8, 1e11, 6)))
    df = pd.DataFrame({"params": n, "tokens": d, "loss": 1.7 + 400 * n**-0.34 + 410 * d**-0.28})
    found = lmexp.fit(df, laws=["chinchilla"], bootstraps=100)
    assert found.laws["chinchilla"].theta["alpha"] == pytest.approx(0.34, rel=1e-4)
    df.to_csv(tmp_path / "points.csv", index=False)
    again = lmexp.fit(tmp_path / "points.csv", laws=["chinchilla"], bootstraps=100)
    assert again.laws["chinchilla"].theta == pytest.approx(found.laws["chinchilla"].theta, rel=1e-6)
    with pytest.raises(UserError, match="loss"):
        lmexp.fit(df.drop(columns="loss"))


@pytest.mark.parametrize("wrong", [(), ("nowhere",)])
def test_a_folder_without_a_study_is_one_sentence(wrong):
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        lmexp.load(*wrong)


def test_what_is_not_there_is_said_as_python_says_it():
    with pytest.raises(AttributeError, match="no attribute 'plot'"):
        _ = lmexp.plot


def test_the_example_of_the_docs_runs(folder, monkeypatch):
    chapter = (Path(__file__).parents[1] / "docs" / "report.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)
    monkeypatch.chdir(folder.parent.parent)
    assert folder.parent.name.startswith("outputs")
    (folder.parent.parent / "outputs").exists() or (folder.parent.parent / "outputs").symlink_to(folder.parent)
    names: dict[str, pd.DataFrame] = {}
    exec(example, names)
    assert len(names["best"]) >= 1 and len(names["half"]) == 5
