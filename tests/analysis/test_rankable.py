"""Only rows that were scored on the same thing, in the same unit, are ranked together."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lmexp.analysis.advice.advise import learn
from lmexp.analysis.effects.power import seeds_to_show
from lmexp.analysis.filters import choosing, matching
from lmexp.analysis.findings import findings
from lmexp.analysis.frontier import frontier
from lmexp.analysis.hypervolume import hypervolume
from lmexp.analysis.rankable import obstacles, rank_groups
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.table import Study, load_study
from lmexp.analysis.versus.arms import arms_by_words
from lmexp.analysis.versus.versus import versus
from lmexp.cli.app import app
from lmexp.errors import UserError
from lmexp.files import write_json
from lmexp.report.export.document import study_document
from lmexp.report.options import ViewOptions
from lmexp.report.view import StudyView
from lmexp.runs.directory import RunDir
from tests.report.synthetic import config, record_of


def table_of(n=2, **columns) -> pd.DataFrame:
    """Return finished rows of one language-modelling task, scored on one text in one kind of tokens."""
    known = {
        "task": ["causal_lm"] * n,
        "loss": [3.0, 2.0, 1.0][:n],
        "perplexity": [20.0, 7.0, 3.0][:n],
        "bits_per_byte": [1.5, 1.4, 1.3][:n],
        "train_seconds": [1.0, 2.0, 3.0][:n],
        "validation_fingerprint": ["text"] * n,
        "data_fingerprint": ["data"] * n,
        "tokenizer_fingerprint": ["byte"] * n,
        "text_lost": [0.0] * n,
    }
    return pd.DataFrame(known | columns)


def test_rows_of_one_text_and_tokenizer_are_ranked_together():
    for quality in ("loss", "perplexity", "accuracy", "bits_per_byte", ["loss", "bits_per_byte"]):
        assert rank_groups(table_of(), quality).tolist() == [0, 0]
    assert obstacles(table_of(), "loss") == []


@pytest.mark.parametrize("quality", ["loss", "bits_per_byte", "score/causal_lm/x", "score/causal_lm-int8/loss"])
def test_other_texts_are_not_even_if_the_tokenizers_differ_too(quality):
    # tokenizer=char learns another vocabulary from another text.
    table = table_of(validation_fingerprint=["a", "b"], data_fingerprint=["c", "d"], tokenizer_fingerprint=["e", "f"])
    assert rank_groups(table, quality).tolist() == [0, 1]
    assert obstacles(table, quality)[0] == "The runs were scored on different texts: their qualities do not compare."


def test_scores_on_other_data_do_not_depend_on_the_runs_own_text():
    table = table_of(validation_fingerprint=["a", "b"])
    for quality in ("score/boolq/acc", "score/causal_lm-on-1f2e3d/bits_per_byte"):
        assert rank_groups(table, quality).tolist() == [0, 0]


def test_scores_on_the_test_split_compare_by_the_test_text():
    other_test = table_of(test_fingerprint=["a", "b"])
    other_validation = table_of(validation_fingerprint=["a", "b"], test_fingerprint=["text"] * 2)
    for quality in ("score/causal_lm-test/loss", "score/causal_lm-test-int8/bits_per_byte"):
        assert rank_groups(other_test, quality).tolist() == [0, 1]
        assert rank_groups(other_validation, quality).tolist() == [0, 0]
    assert rank_groups(other_test, "loss").tolist() == [0, 0]


def test_a_loss_per_token_compares_within_a_tokenizer_and_bits_per_byte_between_lossless_ones():
    table = table_of(tokenizer_fingerprint=["byte", "bpe"], data_fingerprint=["c", "d"])
    assert rank_groups(table, "loss").tolist() == [0, 1]
    assert rank_groups(table, "bits_per_byte").tolist() == [0, 0]
    assert obstacles(table, "bits_per_byte") == []
    assert "losses per token do not compare" in obstacles(table, "loss")[0]


def test_tokenizers_that_lose_different_text_are_not_ranked_by_bits_per_byte():
    table = table_of(3, tokenizer_fingerprint=["byte", "bpe", "hf"], text_lost=[0.0, 5e-5, 0.371])
    assert rank_groups(table, "bits_per_byte").tolist() == [0, 0, 1]
    (sentence,) = obstacles(table, "bits_per_byte")
    assert sentence.startswith("The tokenizers lose different shares of the text (0.0% to 37.1%): bits per byte do not")
    # The lossy one would beat both; it has a frontier of its own.
    assert frontier(table, "bits_per_byte").tolist() == [True, True, True]


def test_losses_of_targets_that_were_cut_off_do_not_compare_and_scores_of_whole_texts_do():
    table = table_of(3, task=["seq2seq"] * 3, targets_cut=[None, 0.0, 0.2])
    assert rank_groups(table, "loss").tolist() == rank_groups(table, "score/seq2seq/loss").tolist() == [0, 0, 1]
    assert rank_groups(table, "score/seq2seq/bleu").tolist() == [0, 0, 0]
    assert obstacles(table, "loss")[0].startswith("data.truncate cut off different shares of the targets")


def test_a_loss_per_label_compares_whatever_the_tokenizer_but_not_between_labels():
    labels = {"task": ["tag"] * 2, "perplexity": [None, None], "tokenizer_fingerprint": ["byte", "bpe"]}
    assert rank_groups(table_of(**labels), "loss").tolist() == [0, 0]
    table = table_of(**labels, validation_fingerprint=["nine tags", "five tags"])
    assert rank_groups(table, "loss").tolist() == rank_groups(table, "score/tag/span_f1").tolist() == [0, 1]
    assert obstacles(table, "loss")[0].startswith("The runs were scored on different texts or labels")


def test_costs_compare_whatever_was_scored_within_a_task():
    table = table_of(3, validation_fingerprint=["a", "b", "b"], task=["causal_lm", "causal_lm", "tag"])
    assert rank_groups(table, "train_seconds").tolist() == [0, 0, 1]


def test_rows_of_earlier_versions_are_known_by_their_tokens():
    old = {"validation_fingerprint": [None] * 3, "text_lost": [None] * 3}
    assert rank_groups(table_of(3, **old), "loss").tolist() == [0, 0, 0]
    assert rank_groups(table_of(3, **old, data_fingerprint=["a", "a", "b"]), "loss").tolist() == [0, 0, 1]
    # Other tokens of another tokenizer may be the same text: nothing is held against them.
    others = table_of(3, **old, data_fingerprint=["a", "b", "c"], tokenizer_fingerprint=["x", "y", "z"])
    assert rank_groups(others, "bits_per_byte").tolist() == [0, 0, 0]
    mixed = table_of(3, validation_fingerprint=["t", None, "u"], data_fingerprint=["a", "a", "b"])
    assert rank_groups(mixed, "loss").tolist() == [0, 0, 1]


def test_a_table_that_says_nothing_of_texts_is_ranked_as_it_is():
    table = pd.DataFrame({"loss": [2.0, 3.0], "train_seconds": [1.0, 2.0]})
    assert rank_groups(table, "loss").tolist() == [0, 0]
    assert obstacles(table, "loss") == []


PATHS = ("poem.txt", "log.txt")


@pytest.fixture
def two_texts(tmp_path) -> Study:
    """Return a study of two texts and two seeds with tokenizer=char: the runs on the log have the lower loss."""
    folder, cells = tmp_path / "texts", []
    for text, path in enumerate(PATHS):
        for seed in (0, 1):
            name = f"{text}{seed}"
            made = config("gpt_nano", 2, "fp32", seed, slug=f"{path[:-4]}-s{seed}")
            of_text = {"validation_fingerprint": path, "data_fingerprint": path, "tokenizer_fingerprint": path}
            run = RunDir.create(folder / name, made)
            run.write_record([record_of(made, 2.0 - text + 0.01 * seed) | of_text | {"run_id": name, "unit": name}])
            run.update_state(state="done")
            cells.append({"run_id": name, "path": name, "values": {"data.path": path, "seed": seed}})
    axes = {"data.path": list(PATHS), "seed": [0, 1]}
    write_json(folder / "sweep.json", {"name": "texts", "axes": axes, "cells": cells})
    return load_study([folder])


def test_findings_rank_each_text_by_itself_and_say_why(two_texts):
    said = findings(two_texts).sentences
    assert said[0] == "The runs were scored on different texts: their qualities do not compare."
    assert any(s.startswith("data.path poem.txt: All runs are of one setting: mean loss, 2.0050") for s in said)
    assert any(s.startswith("data.path log.txt: All runs are of one setting: mean loss, 1.0050") for s in said)
    assert not any("data.path log.txt against" in sentence for sentence in said)


def test_a_view_gives_each_text_its_own_frontier_order_knee_and_groups(two_texts):
    view = StudyView.of(two_texts, ViewOptions(quality=("loss",), reach={"loss": 1.5}))
    assert view.table["slug"][view.marks].tolist() == ["poem-s0", "log-s0"]
    assert view.table["slug"].iloc[view.order].tolist() == ["poem-s0", "poem-s1", "log-s0", "log-s1"]
    assert view.groups is not None and view.groups["frontier"].tolist() == [True, True]
    assert view.groups["data.path"].tolist() == list(PATHS)  # not by the loss, by which the log comes first
    assert view.notes[0].startswith("* on the frontier: no other run that it compares with beats it")
    assert not [name for name in view.groups if "rank" in str(name)]
    assert view.answers[0].startswith("data.path poem.txt: No finished run reaches loss of at most 1.5")
    assert view.answers[1].startswith("data.path log.txt: The cheapest run that reaches")
    document = study_document(view)
    assert set(document["noise"]) == {f"data.path {path}" for path in PATHS}
    assert document["effects"] == []


def test_no_law_hypervolume_or_number_of_seeds_is_of_several_texts(two_texts):
    for ask in (
        lambda: points_of_study(two_texts),
        lambda: hypervolume(two_texts.table, "loss", "train_seconds"),
        lambda: seeds_to_show(two_texts, "loss", 0.1),
        lambda: learn(two_texts),
        lambda: versus(two_texts, arms_by_words(two_texts, ["data.path"])),
    ):
        with pytest.raises(UserError, match="scored on different texts"):
            ask()


def test_a_refusal_says_how_to_choose_a_text_unless_each_arm_has_its_own(two_texts):
    how = r"""qualities do not compare\. Choose those that compare, as with --where "data.path = 'poem.txt'"\.$"""
    for refused in (
        lambda: points_of_study(two_texts),
        lambda: seeds_to_show(two_texts, "loss", 0.1),
        lambda: learn(two_texts),
        lambda: versus(two_texts, arms_by_words(two_texts, ["seed = 0", "seed = 1"])),
    ):
        with pytest.raises(UserError, match=how):
            refused()
    with pytest.raises(UserError, match=r"qualities do not compare\.$"):
        versus(two_texts, arms_by_words(two_texts, ["data.path"]))


@pytest.mark.parametrize("values", [["it's"], ["a\\b", "c d"], [3, -4.5], [1e-30], [True]])
@pytest.mark.parametrize("name", ["data.path", "score/x y-z"])
def test_the_expression_that_chooses_values_keeps_their_rows(name, values):
    other = {str: "other", bool: False}.get(type(values[0]), 1e-5)
    table = pd.DataFrame({name: [*values, other]})
    assert matching(table, choosing(name, values)).tolist() == [True] * len(values) + [False]


def test_parts_that_no_axis_tells_apart_are_named_by_sweep_or_by_what_was_scored(two_texts):
    study = replace(two_texts, axes={"seed": [0, 1]})
    assert list(study.rankable("loss")) == [f"tokenizer_fingerprint {path}" for path in PATHS]
    by_sweep = replace(study, table=study.table.assign(sweep=["a", "a", "b", "b"]))
    assert list(by_sweep.rankable("loss")) == ["sweep a", "sweep b"]
    assert by_sweep.kept("sweep = 'b'").table["data_fingerprint"].unique().tolist() == ["log.txt"]


def test_unfinished_rows_belong_to_no_part(two_texts):
    table = two_texts.table.copy()
    table.loc[0, "state"] = "failed"
    parts = Study(**{**two_texts.__dict__, "table": table}).rankable("loss")
    assert {name: len(part.table) for name, part in parts.items()} == {
        "data.path poem.txt": 1,
        "data.path log.txt": 2,
    }
    assert np.unique(rank_groups(two_texts.table, "train_seconds")).tolist() == [0]


def test_advise_names_the_choice_that_its_option_where_takes(two_texts):
    folder = two_texts.folders[0]

    def said(*options):
        words = ["advise", folder.name, "--hours", "1", "--output-dir", str(folder.parent), *options]
        return str(CliRunner().invoke(app, words).exception)

    assert """as with --where "data.path = 'poem.txt'".""" in said()
    assert "no row of texts meets --where seed = 5" in said("--where", "seed = 5")
    assert "do not compare" not in said("--where", "data.path = 'poem.txt'")
