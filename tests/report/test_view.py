"""A view of a study: which rows and columns it shows, in which order, and the answers that it gives."""

from dataclasses import replace

import numpy as np
import pytest

from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.report.options import ViewOptions, split_names
from lmexp.report.view import StudyView
from tests.analysis.effects.test_ties import TIED_ARMS, study_of
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study([write_study(tmp_path_factory.mktemp("outputs"))])


def view(study, **options):
    return StudyView.of(study, ViewOptions(**options))


def test_where_keeps_rows_and_an_expression_that_keeps_none_is_an_error(study):
    part = view(study, where="precision == 'bf16'")
    assert set(part.table["precision"]) == {"bf16"} and len(part.table) < len(study.table)
    with pytest.raises(UserError, match="no row of demo meets --where precision == 'fp8'"):
        view(study, where="precision == 'fp8'")


def test_without_a_quality_the_fair_one_is_taken(study):
    assert view(study).options.quality == (study.default_quality,) == ("loss",)


def test_rows_come_best_first_and_those_without_a_number_last(study):
    losses = study.table["loss"].iloc[view(study).order]
    assert losses.iloc[:8].is_monotonic_increasing and losses.iloc[8:].isna().all()
    speeds = study.table["tokens_per_second"].iloc[view(study, sort="tokens_per_second").order]
    assert speeds.iloc[:8].is_monotonic_decreasing and speeds.iloc[8:].isna().all()
    names = study.table["precision"].iloc[view(study, sort="precision").order].tolist()
    assert names == sorted(names)


def test_the_first_rows_have_the_frontier_with_them(study):
    shown = view(study, top=5, sort="run_id")
    assert 5 < len(shown.first) < len(shown.order) and list(shown.first[:5]) == list(shown.order[:5])
    assert all(shown.marks[at] for at in shown.first[5:])
    assert set(np.flatnonzero(shown.marks)) <= set(shown.first)
    assert list(view(study, top=0, sort="run_id").first) == list(shown.order)


def test_columns_are_the_axes_the_measures_and_the_state_unless_they_are_chosen(study):
    names = view(study).names
    assert names[:4] == study.varied and names[-1] == "state" and {"loss", "train_seconds"} <= set(names)
    finished = view(study, where="state == 'done'")
    assert "state" not in finished.names, "all runs are done"
    assert view(study, columns=("slug", "loss", "slug")).names == ["slug", "loss"]
    with pytest.raises(UserError, match=r"there is no column 'los'\. Did you mean 'loss'"):
        view(study, columns=("los",))


def test_runs_with_privacy_show_their_epsilon_beside_those_without(study):
    private = study.table.assign(epsilon=[7.9, *[None] * (len(study.table) - 1)])
    assert "epsilon" in view(replace(study, table=private)).names and "epsilon" not in view(study).names


def test_the_cheapest_run_that_reaches_a_bound(study):
    (answer,) = view(study, reach={"loss": 2.95}, cost=("train_flops",)).answers
    assert answer.startswith("The cheapest run that reaches loss of at most 2.95 is gpt_nano-l4-fp32-s0: ")
    assert "loss 2.9000 nats, training compute 1.38T FLOPs" in answer
    (answer,) = view(study, reach={"loss": 1.0}).answers
    assert answer.startswith(
        "No finished run reaches loss of at most 1; the closest, gpt_tiny-l4-fp32-s0, has loss 2.5000 nats"
    )


def test_the_best_run_within_limits(study):
    limit = sorted(study.table["train_seconds"].dropna())[1]
    (answer,) = view(study, under={"train_seconds": limit}).answers
    affordable = study.table[study.table["train_seconds"] <= limit]
    best = affordable.loc[affordable["loss"].idxmin()]
    assert answer.startswith("The best run with training time of at most") and f"{best['model']}" in answer
    assert f"loss {best['loss']:.4f}" in answer
    (answer,) = view(study, under={"dollars": 1.0}).answers
    assert answer == "No finished run has price of at most 1: none has a price."


def test_a_bound_follows_the_good_direction_of_its_column(study):
    (answer,) = view(study, reach={"accuracy": 0.29}).answers
    assert "accuracy of at least 0.29" in answer


def test_text_marks_the_frontier_and_shows_a_dash_for_null(study):
    shown = view(study)
    texts = shown.texts(shown.order)
    assert texts["frontier"] == ["*" if shown.marks[at] else "" for at in shown.order]
    assert texts["loss"][-2:] == ["–", "–"] and all(len(column) == 10 for column in texts.values())


def test_a_speed_measured_beside_other_runs_has_a_mark_and_a_note(study):
    table = study.table.copy()
    table.loc[table.index[0], "exclusive"] = False
    shown = StudyView.of(replace(study, table=table))
    texts = shown.texts([0, 1])
    assert texts["tokens_per_second"][0].startswith("~") and not texts["tokens_per_second"][1].startswith("~")
    assert not texts["loss"][0].startswith("~")
    assert "~ measured while other work was on the device." in shown.notes


def test_sentences_mark_a_time_measured_beside_other_work_as_the_table_does(study):
    slowed = replace(study, table=study.table.assign(exclusive=False))
    options = ViewOptions(cost=("train_seconds",), reach={"loss": 100.0}, under={"train_seconds": 1e9})
    for marked, of in ((True, slowed), (False, study)):
        shown = StudyView.of(of, options)
        (knee,) = (note for note in shown.notes if note.startswith("The knee"))
        assert ["training time ~" in said for said in (knee, *shown.answers)] == [marked] * 3, (knee, shown.answers)
        assert not any("loss ~" in said for said in (knee, *shown.answers))


def test_names_in_an_option_are_split_at_commas():
    assert split_names(" loss, dollars ,") == ("loss", "dollars") and split_names(None) == ()


def test_the_runs_of_a_tied_setting_are_marked_and_stay_on_the_frontier():
    shown = StudyView.of(study_of(TIED_ARMS))
    marks = dict(zip(shown.table["run_id"], shown.texts(range(len(shown.table)))["frontier"], strict=True))
    assert {run: mark for run, mark in marks.items() if "≈" in mark} == {"large0": "*≈", "large1": "*≈", "large2": "≈"}
    assert [mark.startswith("*") for mark in marks.values()] == shown.marks.tolist()
    assert shown.tied_with.dropna().unique().tolist() == ["small"]
    assert any(note.startswith("≈ tied") for note in shown.notes)
    assert any(
        note.startswith("Within noise of a setting that costs no more: large (of small)") for note in shown.notes
    )


def test_of_the_means_a_group_that_is_a_setting_has_its_tie_and_another_group_has_none():
    shown = StudyView.of(study_of(TIED_ARMS))
    assert shown.groups.set_index("model")["tied_with"].dropna().to_dict() == {"large": "small"}
    assert "tied_with" not in view(study_of(TIED_ARMS), group_by="seed").groups


def test_where_the_noise_is_unknown_the_notes_say_so_and_nothing_is_marked(study):
    shown = view(study)
    assert shown.about_ties and shown.about_ties[0].startswith("No cell has two finished seeds")
    assert not shown.has_ties and set(shown.about_ties) <= set(shown.notes)
