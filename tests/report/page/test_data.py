"""The page shows the numbers of the analysis: an effect is computed once, and is the same wherever it is read."""

import json
import re
from dataclasses import replace
from pathlib import Path

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
from tests.analysis.test_findings import study_of as study_of_runs
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
    assert [text.replace("−", "-") for text in drawn.groups()] == [
        f"{x:+.4f}" for x in (mean, mean - half, mean + half)
    ]


@pytest.mark.parametrize("quality", ["loss", "train_seconds"])
def test_all_changes_of_the_effects_chart_have_the_same_decimals(study: Study, quality: str, tmp_path: Path):
    write_charts(study, tmp_path / "charts", quality, "train_seconds", ["svg"])
    drawn = (tmp_path / "charts/effects.svg").read_text()
    words = " ".join(re.findall(r': (\S+, 95 % interval \S+ to \S+)"', drawn))
    for texts in (re.findall(r"[+−][\d.]+", words), re.findall(r">([+−][\d.]+)<", drawn)):  # changes, ticks
        assert len(texts) > 2 and len({len(text.partition(".")[2]) for text in texts}) == 1, texts


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


TEXTS = {"poem": 0.0, "log": -0.8}


@pytest.fixture(scope="module")
def two_texts(tmp_path_factory) -> Study:
    """Return runs of two sizes on two texts; each text has the loss that no model can beat."""
    runs = [
        ({"data.path": text, "model": model}, loss + below, 5.0)
        for text, below in TEXTS.items()
        for model, loss in (("gpt_nano", 3.0), ("gpt_tiny", 2.5))
    ]
    axes = {"data.path": list(TEXTS), "model": ["gpt_nano", "gpt_tiny"]}
    study = study_of_runs(tmp_path_factory.mktemp("texts"), runs, axes)
    texts = study.table["data.path"]
    scored = dict.fromkeys(["validation_fingerprint", "data_fingerprint"], texts)
    return replace(study, table=study.table.assign(**scored, loss_floor=texts.map({"poem": 2.0, "log": 1.2})))


def test_rows_that_do_not_compare_are_of_different_parts_of_the_page(two_texts: Study):
    data = page_data(two_texts, "loss", "train_seconds")
    field = data["rank_fields"]["loss"]
    assert data["parts"] == {field: ["data.path poem", "data.path log"]}
    assert data["rows"][field] == [0, 0, 1, 1]
    assert {data["rank_fields"][name] for name in ("perplexity", "bits_per_byte")} == {field}
    assert data["rank_fields"]["n_params"] not in data["parts"]
    shorts = [(effect["label"], effect["short"]) for effect in data["effects"] if "loss" in effect["half_of_one_pair"]]
    words = "model: gpt_tiny against gpt_nano"
    assert shorts == [(f"data.path {text}, {words}", words) for text in TEXTS]
    floors = re.findall(r'"of": "loss", "floor": ([\d.]+), "part": "([^"]+)"', json.dumps(data["charts"]["scatter"]))
    assert set(floors) == {("2.0", "data.path poem"), ("1.2", "data.path log")}


def test_rows_of_one_text_have_no_parts_on_the_page(study: Study):
    data = page_data(study, "loss", "train_seconds")
    assert data["parts"] == {} and data["mixed_curves"] == ""
    assert '"part"' not in json.dumps(data["charts"])


def test_curves_of_several_tokenizers_say_that_losses_per_token_do_not_compare(two_texts: Study):
    same_text = two_texts.table.assign(
        validation_fingerprint="text", tokenizer_fingerprint=two_texts.table["data.path"]
    )
    data = page_data(replace(two_texts, table=same_text), "bits_per_byte", "train_seconds")
    assert data["rank_fields"]["bits_per_byte"] not in data["parts"]
    assert data["parts"][data["rank_fields"]["loss"]] == ["data.path poem", "data.path log"]
    assert data["mixed_curves"].startswith("The runs cut text into different tokens: losses per token do not compare")


@pytest.mark.slow
def test_each_part_has_its_figures_in_a_folder_of_its_own(two_texts: Study, tmp_path):
    files = write_charts(two_texts, tmp_path, "loss", "train_seconds", ["svg"])
    folders = ["1-data.path_poem", "2-data.path_log"]
    assert {file.parent.name for file in files} == set(folders)
    poem, log = ((tmp_path / folder / "scatter.svg").read_text() for folder in folders)
    assert poem.count("no model can beat 2") and not poem.count("no model can beat 1.2")
    assert log.count("no model can beat 1.2") and not log.count("no model can beat 2")
