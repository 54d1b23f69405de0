"""From what a model is for to a family; and what a study's own rows add to that."""

from pathlib import Path
from typing import Any

import pytest

from lmexp.analysis.advice.families import PURPOSES, Purpose, guide, purpose_of, sentences
from lmexp.analysis.table import Study, _frame, load_study
from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.models.base import ModelSection
from lmexp.config.targets import shipped_sections
from lmexp.errors import UserError
from tests.analysis.lawful import lawful_study

ROOTS = [paths.shipped_root()]


def test_every_word_means_one_purpose():
    words = [word for purpose in PURPOSES for word in (purpose.name, purpose.task, *purpose.words)]
    assert len(words) == len(set(words))
    assert {purpose_of(word).name for word in ("generating", "Writing", "causal_lm")} == {"generating"}


def test_an_unknown_word_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"--for labeling: .*Did you mean 'labelling'\?"):
        purpose_of("labeling")


@pytest.mark.parametrize("purpose", PURPOSES, ids=[purpose.name for purpose in PURPOSES])
def test_what_it_names_is_there(purpose: Purpose):
    config = Composer(ROOTS, words=purpose.command.split()[2:]).config({})
    assert config.task.name == purpose.task
    assert config.model.family == purpose.families[0].family
    assert purpose.sweep in paths.sweep_files(ROOTS)
    assert all(family.why and family.source for family in purpose.families)


def test_families_are_compared_at_the_most_flops_that_both_have(tmp_path: Path):
    folder = lawful_study(tmp_path, arms=[("gpt", "fp32"), ("llama", "fp32")], worse=0.1, noise=0.0)
    study = load_study([folder])
    found = guide(purpose_of("generating"), study)["study"]
    assert [run["family"] for run in found["families"]] == ["gpt", "llama"]
    table = study.table
    most = min(float(table[table["family"] == family]["train_flops"].max()) for family in ("gpt", "llama"))
    assert found["most_flops"] == most
    assert all(run["train_flops"] <= most for run in found["families"])


def families(worse: float) -> dict[str, Any]:
    """Return the guide of a study of two families with three seeds each; the second is worse by so much."""
    noise = [0.02, -0.01, -0.01]
    rows = [
        {"run_id": f"{family}{seed}", "family": family, "model": family, "seed": seed, "task": "causal_lm"}
        | {"state": "done", "train_flops": 1e12, "loss": 3.0 + worse * i + noise[(seed + i) % 3]}
        for i, family in enumerate(("gpt", "llama"))
        for seed in range(3)
    ]
    axes = {"model": ["gpt", "llama"], "seed": [0, 1, 2]}
    members = {"s": frozenset(str(row["run_id"]) for row in rows)}
    return guide(purpose_of("generating"), Study(("s",), (), axes, _frame(rows, axes), (), 0, members, {}))


def test_families_are_ranked_by_the_means_of_their_settings_and_one_within_noise_of_the_best_is_tied():
    found = families(0.001)
    assert [(run["family"], run["seeds"], run["tied"]) for run in found["study"]["families"]] == [
        ("gpt", 3, None),
        ("llama", 3, True),
    ]
    assert found["study"]["families"][0]["loss"] == pytest.approx(3.0), "not that of its best seed, 2.99"
    assert any(said == "Within noise of it: llama (t test)." for said in sentences(found))


def test_a_family_that_is_worse_by_more_than_noise_is_said_to_be():
    found = families(1.0)
    assert found["study"]["families"][1]["tied"] is False
    assert any(said.startswith("Worse by more than seeds explain: llama") for said in sentences(found))


def test_without_seeds_the_second_sentence_says_what_it_takes_to_know_the_noise(tmp_path: Path):
    study = load_study([lawful_study(tmp_path, arms=[("gpt", "fp32"), ("llama", "fp32")], worse=0.1)])
    first, second, *_ = sentences(guide(purpose_of("generating"), study))
    assert "gpt has the best loss" in first and second.startswith("No cell has two finished seeds")


def test_without_rows_it_says_so(tmp_path: Path):
    assert "No study was given" in sentences(guide(purpose_of("tagging")))[0]
    study = load_study([lawful_study(tmp_path, arms=[("gpt", "fp32")])])
    assert "has no finished run of the task tag" in sentences(guide(purpose_of("tagging"), study))[0]
    assert "so it compares no families" in sentences(guide(purpose_of("generating"), study))[0]


def test_every_family_that_writes_is_suggested_for_writing():
    sections = shipped_sections("lmexp.config.models", ModelSection).values()
    writers = {section.model_fields["family"].default for section in sections if section.ways == ("left_to_right",)}
    assert writers - {"hf"} == {each.family for each in purpose_of("generating").families}
