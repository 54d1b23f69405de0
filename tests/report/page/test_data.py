"""The page shows the numbers of the analysis: an effect is computed once, and is the same wherever it is read."""

import re
from dataclasses import replace

import numpy as np
import pytest

from lmexp.analysis.effects.effects import effects
from lmexp.analysis.findings import findings
from lmexp.analysis.table import Study
from lmexp.report.charts.export import write_charts
from lmexp.report.export.document import study_document
from lmexp.report.options import ViewOptions
from lmexp.report.page.data import page_data, pair_changes
from lmexp.report.view import StudyView
from tests.analysis.effects.test_ties import TIED_ARMS
from tests.analysis.effects.test_ties import study_of as study_of_arms
from tests.analysis.test_groups import study_of

LABEL = "precision: bf16 against fp32"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Two models in two precisions, three seeds each: bf16 costs more with one model than with the other."""
    return study_of(tmp_path_factory.mktemp("outputs"), jitter=0.004)


def on_the_page(study: Study, quality: str) -> tuple[float, float]:
    """Return the mean and half the width of the interval that the page's chart draws for bf16."""
    data = page_data(study, quality, "train_seconds")
    changes = [pair["change"] for pair in pair_changes(data, quality) if pair["label"] == LABEL]
    (effect,) = [effect for effect in data["effects"] if effect["label"] == LABEL]
    return float(np.mean(changes)), effect["half_of_one_pair"][quality] / len(changes) ** 0.5


@pytest.mark.parametrize("quality", ["loss", "accuracy", "train_seconds"])
def test_the_page_the_document_and_the_analysis_have_the_same_effect(study: Study, quality: str):
    (effect,) = effects(study, "precision", quality, "train_seconds")
    document = study_document(StudyView.of(study, ViewOptions(quality=(quality,))))
    (told,) = [each for each in document["effects"] if each["axis"] == "precision"]
    assert (told["change"], told["half_width_95"]) == (effect.mean, effect.half)
    assert on_the_page(study, quality) == pytest.approx((effect.mean, effect.half), abs=1e-7)


def test_the_findings_in_the_terminal_and_the_drawn_chart_have_it_too(study: Study, tmp_path):
    mean, half = on_the_page(study, "loss")
    (sentence,) = [said for said in findings(study).sentences if said.startswith("precision bf16 against fp32")]
    assert f"loss +{mean:.4f} ± {half:.4f} (95 %, 6 pairs of equal seed)" in sentence
    write_charts(study, tmp_path / "charts", "loss", "train_seconds", ["svg"])
    drawn = re.search(rf'"{LABEL}: (\S+), 95 % interval (\S+) to (\S+)"', (tmp_path / "charts/effects.svg").read_text())
    low_and_high = [float(drawn[i].replace("−", "-")) for i in (1, 2, 3)]
    assert low_and_high == pytest.approx([mean, mean - half, mean + half], rel=1e-3)


def test_the_interval_is_from_seeds_of_one_cell_and_not_from_the_difference_between_cells(tmp_path):
    study = study_of(tmp_path, jitter=0.001)
    _, half = on_the_page(study, "loss")
    spread_over_all_pairs = 2.571 * np.std(effects(study, "precision", "loss", "tokens")[0].changes, ddof=1) / 6**0.5
    assert half != pytest.approx(spread_over_all_pairs, rel=0.01)


def test_effects_of_two_tasks_are_not_mixed(study: Study):
    table = study.table.copy()
    table.loc[table["model"] == "gpt_tiny", "task"] = "masked_lm"
    labels = [effect["label"] for effect in page_data(replace(study, table=table), "loss", "train_seconds")["effects"]]
    assert labels == [f"causal_lm, {LABEL}", f"masked_lm, {LABEL}"]


def test_a_tied_row_names_the_cheaper_setting_in_the_table_and_in_the_tooltip():
    data = page_data(study_of_arms(TIED_ARMS), "loss", "train_seconds")
    of_model = dict(zip(data["rows"]["model"], data["rows"]["tied_with"], strict=True))
    assert of_model == {"small": None, "large": "small", "huge": None}
    assert "tied_with" in data["told"] and [column["name"] for column in data["columns"][:2]] == [
        "frontier",
        "tied_with",
    ]
    assert data["about_ties"][0].startswith("Within noise of a setting that costs no more: large (of small)")


def test_without_ties_the_page_has_no_column_of_them():
    data = page_data(study_of_arms({"a": (1.0, [3.0]), "b": (2.0, [2.9])}), "loss", "train_seconds")
    assert "tied_with" not in data["rows"] and "tied_with" not in [column["name"] for column in data["columns"]]
