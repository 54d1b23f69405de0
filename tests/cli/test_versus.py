"""`lmexp versus` and `lmexp.versus` on a study on disk: the table, the JSON document, and the exit code of a gate."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import lmexp
from lmexp.cli import app
from lmexp.errors import UserError
from tests.analysis.lawful import lawful_study

TOKENS = tuple(float(round(tokens)) for tokens in np.geomspace(1e6, 6.4e7, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fp32 and bf16, which is twice as fast per token, at one width and eight budgets, without noise."""
    return lawful_study(tmp_path_factory.mktemp("outputs"), widths=(64,), tokens=TOKENS, worse=0.002, noise=0.0)


def command(folder: Path, *words: str) -> list[str]:
    return ["versus", folder.name, "--arms", "precision", *words, "--output-dir", str(folder.parent)]


def gate(folder: Path, bound: float) -> str:
    file = folder.parent / f"gate{bound:g}.yaml"
    file.write_text(f"min_speedup: {bound}\ncost: seconds\n")
    return str(file)


def test_a_table_shows_raw_speed_beside_that_at_equal_loss(folder: Path):
    result = CliRunner().invoke(app, command(folder, "--cost", "seconds"))
    assert result.exit_code == 0, result.output
    assert "precision=bf16 against precision=fp32, at equal loss" in result.output
    row = next(line.split() for line in result.output.splitlines() if line.startswith("seconds"))
    assert row[:2] == ["seconds", "overall"] and float(row[2]) < 2 and row[6] == "2"


def test_the_json_document_has_what_python_has(folder: Path):
    result = CliRunner().invoke(app, command(folder, "--json", "--gate", gate(folder, 1.5)))
    document = json.loads(result.output)
    report = lmexp.versus(folder, arms=["precision"], gate=gate(folder, 1.5))
    assert result.exit_code == 0 and report.passes and document["gate"]["verdict"] == "pass"
    overall = document["arms"][0]["costs"]["seconds"]["overall"]
    row = report.table.query("cost == 'train_seconds' and scale == 'overall'").iloc[0]
    assert (overall["speedup"], overall["raw"]) == (row["speedup"], row["raw"])
    assert row["raw"] == pytest.approx(2) and 1.5 < row["speedup"] < 2
    assert document["sentences"] == report.sentences and "precision=bf16 needs" in report.sentences[0]
    assert document["arms"][0]["effect"] == {
        "mean": pytest.approx(0.002),
        "half": pytest.approx(0, abs=1e-9),
        "pairs": 8,
    }
    assert (
        "In the cells that both have run, precision=bf16 against precision=fp32: loss +0.0020 (mean"
        in report.sentences[0]
    )


def test_a_gate_that_is_not_passed_ends_with_1(folder: Path):
    result = CliRunner().invoke(app, command(folder, "--gate", gate(folder, 2.5)))
    assert result.exit_code == 1
    assert "The gate is failed: seconds above 2.5." in result.output


def test_two_sweeps_are_two_arms_and_one_alone_is_none(folder: Path):
    other = lawful_study(folder.parent, "other", (("gpt", "bf16"),), (64,), TOKENS, noise=0.0)
    report = lmexp.versus(folder, other, where="precision == 'fp32' or sweep == 'other'", cost="flops")
    assert report.result.baseline == "lawful"
    assert report.table["speedup"].iloc[0] == pytest.approx(1, rel=1e-6), "the same losses at the same FLOPs"
    with pytest.raises(UserError, match="lawful is one sweep: name its arms with --arms"):
        lmexp.versus(folder)
    with pytest.raises(UserError, match=r"there is no sweep in .*/lawfull\. Did you mean 'lawful'\?"):
        lmexp.versus(folder.parent / "lawfull")


def test_an_axis_is_named_by_its_key_or_as_tables_name_it(tmp_path: Path):
    folder = lawful_study(tmp_path, arms=[("gpt", "fp32")], widths=(64, 96), tokens=TOKENS)
    by_key, by_heading = (
        lmexp.versus(folder, arms=[axis], cost="flops").table for axis in ("model.d_model", "d_model")
    )
    assert set(by_key["arm"]) == {"d_model=96"} and by_key.equals(by_heading)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"arms": ["precisio"]}, "no axis 'precisio' in lawful. Did you mean 'precision'?"),
        ({"arms": ["precision=fp33,bf16"]}, "no finished run of lawful has precision fp33. Did you mean 'fp32'?"),
        ({"arms": ["precision=bf16"]}, "this is one arm, and a comparison takes two"),
        ({"arms": ["precision=bf16,bf16"]}, "--arms names precision=bf16 twice"),
        ({"arms": ["precision == 'bf16'", "precision = 'fp'"]}, "no finished run of lawful has precision fp."),
        ({"arms": ["precision == 'bf16'", "loss > 99"]}, "no finished run of lawful meets loss > 99"),
        ({"arms": ["precision"], "baseline": "bf17"}, "no arm has this name"),
        ({"arms": ["precision"], "where": "loss > 99"}, "no row of lawful meets --where loss > 99"),
        ({"arms": ["precision"], "confidence": 0.9, "gate": 1.5}, "leave out --confidence"),
    ],
)
def test_wrong_input_is_one_message(words: dict, said: str, folder: Path):
    if "gate" in words:
        words = words | {"gate": gate(folder, words["gate"])}
    with pytest.raises(UserError) as raised:
        lmexp.versus(folder, **words)
    assert said in str(raised.value)
