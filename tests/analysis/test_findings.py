"""The findings say what the rows bear out, and nothing else."""

import re
from dataclasses import replace

import pytest

from lmexp.analysis.best import nearly_as_good
from lmexp.analysis.columns import format_number
from lmexp.analysis.effects.effects import effects
from lmexp.analysis.findings import findings, headline
from lmexp.analysis.table import load_study, names_of_rows
from lmexp.files import read_json, write_json
from lmexp.runs.directory import RunDir
from lmexp.units import si
from tests.report.synthetic import config, record_of, write_run, write_study


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return load_study([write_study(tmp_path_factory.mktemp("outputs"))])


def test_a_classifier_that_loses_to_a_baseline_is_named(tmp_path):
    study = load_study([write_study(tmp_path)])
    assert not any("beat the accuracy" in sentence for sentence in findings(study).sentences)
    table = study.table
    table["accuracy"] = 0.8
    table["majority_accuracy"], table["bag_of_words_accuracy"] = 0.5, 0.7
    table.loc[0, "bag_of_words_accuracy"] = 0.8123
    name = names_of_rows(table)[0]
    (said,) = [sentence for sentence in findings(study).sentences if "beat the accuracy" in sentence]
    assert said == f"{name} does not beat the accuracy of a bag of words, 0.8123."
    table["bag_of_words_accuracy"] = 0.8123
    (said,) = [sentence for sentence in findings(study).sentences if "the accuracy of" in sentence]
    finished = int((table["state"] == "done").sum())
    assert said == f"None of the {finished} runs beats the accuracy of a bag of words, 0.8123."


def test_the_best_run_is_held_against_the_loss_that_no_model_can_beat(tmp_path):
    study = load_study([write_study(tmp_path)])
    assert not any("expected to beat" in sentence for sentence in findings(study).sentences)
    table = study.table
    table["loss_floor"] = 2.3
    (said,) = [sentence for sentence in findings(study).sentences if "expected to beat" in sentence]
    assert said == (
        "No model can be expected to beat a loss of 2.3000 nats on this text: gpt_tiny-l4-fp32-s0 is 0.2000 above it."
    )
    (said,) = [sentence for sentence in findings(study, "bits_per_byte").sentences if "expected to beat" in sentence]
    best = table["bits_per_byte"].min()
    assert f"is {best * (1 - 2.3 / 2.5):.4f} above it" in said
    table.loc[0, "loss_floor"] = 2.2  # as with another context: there is no one floor
    assert not any("expected to beat" in sentence for sentence in findings(study).sentences)


def study_of(root, runs, axes, **manifest):
    """Write finished runs given as (values, loss, seconds) and load them as one sweep."""
    folder = root / "sweep"
    cells = []
    for i, (values, loss, seconds) in enumerate(runs):
        made = config(
            values.get("model", "gpt_nano"), 2, values.get("precision", "fp32"), values.get("seed", 0), slug=f"r{i}"
        )
        row = record_of(made, loss) | {"run_id": f"{i:04d}", "train_seconds": seconds}
        run = RunDir.create(folder / f"r{i}", made)
        run.write_record([row])
        run.update_state(state="done")
        cells.append({"run_id": f"{i:04d}", "path": f"r{i}", "values": values})
    write_json(folder / "sweep.json", {"name": "sweep", "axes": axes, "cells": cells} | manifest)
    return load_study([folder])


def test_the_headline_is_the_best_run_and_what_it_cost(demo):
    assert headline(demo) == findings(demo).answer[0], "before what is known of noise"
    assert headline(demo).startswith("gpt_tiny-l4-fp32-s0 has the lowest loss, 2.5000 nats, for 25.6 s")
    assert headline(demo, "accuracy").startswith("gpt_tiny-l4-fp32-s0 has the highest accuracy")


def test_another_seed_of_the_best_setting_is_not_called_cheaper(tmp_path):
    cells = [("fp32", 0, 2.0, 9.0), ("fp32", 1, 2.01, 4.0), ("bf16", 0, 2.015, 5.0), ("bf16", 1, 2.3, 5.0)]
    runs = [({"precision": precision, "seed": seed}, loss, seconds) for precision, seed, loss, seconds in cells]
    study = study_of(tmp_path, runs, {"precision": ["fp32", "bf16"], "seed": [0, 1]})
    assert nearly_as_good(study, "loss", "train_seconds") == [], "r1 is cheaper by chance, and beats r2"


def test_a_cheaper_run_that_is_nearly_as_good_is_named(demo):
    assert findings(demo).rest[0] == (
        "gpt_tiny-l4-bf16-s0 comes within 1% of gpt_tiny-l4-fp32-s0 (2.5100 nats) at 0.50x the training time."
    )


def test_an_axis_is_read_from_pairs_that_differ_in_it_alone(demo):
    (effect,) = effects(demo, "precision", "loss", "train_seconds")
    assert (effect.base, effect.value, len(effect.changes)) == ("fp32", "bf16", 4)
    assert effect.changes == pytest.approx([0.01] * 4) and effect.cost_ratio == pytest.approx(0.5)
    said = findings(demo).sentences
    assert any(s.startswith("precision bf16 against fp32: loss +0.0100 (mean of 4 pairs") for s in said)
    assert any(s.startswith("model.n_layers 4 against 2: loss −0.2000 (mean of 4 pairs") for s in said)


def test_pairs_are_not_confounded_by_missing_cells(tmp_path):
    # bf16 was run on the large model only: group means would say that it lowers the loss.
    runs = [
        ({"model": "gpt_nano", "precision": "fp32"}, 3.0, 1.0),
        ({"model": "gpt_tiny", "precision": "fp32"}, 2.0, 4.0),
        ({"model": "gpt_tiny", "precision": "bf16"}, 2.1, 2.0),
    ]
    study = study_of(tmp_path, runs, {"model": ["gpt_nano", "gpt_tiny"], "precision": ["fp32", "bf16"]})
    said = findings(study).sentences
    assert "precision bf16 against fp32: loss +0.1000 (one pair), 0.50x the training time, 2.00x the tokens/s." in said


def test_axes_that_change_together_are_not_told_apart(tmp_path):
    runs = [
        ({"model": "gpt_nano", "optim.lr": 1e-3}, 3.0, 1.0),
        ({"model": "gpt_tiny", "optim.lr": 1e-4}, 2.0, 4.0),
    ]
    study = study_of(tmp_path, runs, {"model": ["gpt_nano", "gpt_tiny"], "optim.lr": [1e-3, 1e-4]})
    said = "No two finished runs differ in one of model and optim.lr alone, so their effects cannot be told apart."
    assert said in findings(study).sentences
    assert effects(study, "model", "loss", "train_seconds") == []


def test_runs_that_differ_in_no_axis_are_not_compared(tmp_path):
    runs = [({"precision": "fp32"}, 3.0, 1.0), ({"precision": "fp32"}, 2.0, 1.0), ({"precision": "bf16"}, 2.5, 1.0)]
    study = study_of(tmp_path, runs, {"precision": ["fp32", "bf16"]})
    assert effects(study, "precision", "loss", "train_seconds") == []


def test_runs_of_two_sweeps_are_not_paired(tmp_path):
    axes = {"precision": ["fp32", "bf16"]}
    study_of(tmp_path / "a", [({"precision": "fp32"}, 3.0, 1.0)], axes)
    study_of(tmp_path / "b", [({"precision": "bf16"}, 2.0, 1.0)], axes, name="other")
    second = read_json(tmp_path / "b" / "sweep" / "r0" / "record.json")
    second["rows"][0]["run_id"] = "other"
    write_json(tmp_path / "b" / "sweep" / "r0" / "record.json", second)
    study = load_study([tmp_path / "a" / "sweep", tmp_path / "b" / "sweep"])
    assert len(study.table) == 2 and effects(study, "precision", "loss", "train_seconds") == []


def test_seeds_say_how_large_noise_is(tmp_path):
    runs = [({"precision": p, "seed": s}, 3.0 + 0.02 * s, 1.0) for p in ("fp32", "bf16") for s in (0, 1)]
    study = study_of(tmp_path, runs, {"precision": ["fp32", "bf16"], "seed": [0, 1]})
    said = findings(study).sentences
    assert any("Seeds alone move the loss by 0.0141 (standard deviation within 2 cells;" in s for s in said)
    assert not any("No cell has two finished seeds" in s for s in said)


def test_one_seed_is_said_to_be_one_seed(demo):
    assert findings(demo).answer[2] == (
        "No cell has two finished seeds, so it is unknown which differences are noise; 3 more seeds of "
        "gpt_nano-l2-bf16-s0 would show it, for about 5.90 s."
    )


def test_what_did_not_finish_is_counted_by_state(demo):
    assert "2 of 10 runs did not finish: 1 failed, 1 diverged." in findings(demo).sentences
    assert "1 cell was skipped before the start." in findings(demo).sentences


def test_without_finished_runs_it_says_so(tmp_path):
    RunDir.create(tmp_path / "demo" / "a", config("gpt_nano", 2, "fp32"))
    assert findings(load_study([tmp_path / "demo"])).sentences == [
        "No run has finished with a loss yet.",
        "1 of 1 runs is still to come: 1 queued.",
    ]


def test_a_single_run_is_not_called_the_best(tmp_path):
    write_run(tmp_path / "demo" / "a", config("gpt_nano", 2, "fp32"), 3.0)
    assert findings(load_study([tmp_path / "demo"])).sentences == [
        "gpt_nano-l2-fp32-s0 is the only finished run: loss, 3.0000 nats, for 3.93 s of training time."
    ]


def test_of_many_values_only_the_best_and_the_worst_are_told(tmp_path):
    runs = [({"optim.lr": i}, 3.0 + (i - 4) ** 2, 1.0) for i in range(10)]
    said = findings(study_of(tmp_path, runs, {"optim.lr": list(range(10))})).sentences
    told = [sentence for sentence in said if sentence.startswith("optim.lr ")]
    assert [re.match(r"optim.lr (\d)", sentence)[1] for sentence in told] == ["4", "9"]
    assert "The other 7 values of optim.lr lie between these." in said


def test_milestones_do_not_count_as_runs(tmp_path):
    made = config("gpt_nano", 2, "fp32")
    run = write_run(tmp_path / "demo" / "a", made, 3.0)
    flops = [{"train_flops": 1e12, "spent_flops": 1e12}, {"train_flops": 2e12, "spent_flops": 1.25e12}]
    rows = [record_of(made, 3.5) | {"tokens": 500_000}, record_of(made, 3.0)]
    run.write_record([row | own for row, own in zip(rows, flops, strict=True)])
    study = load_study([tmp_path / "demo"])
    assert headline(study).startswith("gpt_nano-l2-fp32-s0 at 1.00M tokens")
    said = "together they took 2.25T FLOPs, and separate runs would have taken 3.00T FLOPs"
    assert f"Rows of one run share its steps: {said}." in findings(study).sentences


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1.00"),
        (950, "950"),
        (999.9, "1.00k"),
        (1234567, "1.23M"),
        (3.2e15, "3.20P"),
        (0.5, "0.500"),
        (5.934e47, "5.93e47"),
    ],
)
def test_si_prefixes(value, text):
    assert si(value) == text


def test_formats_are_written_as_named():
    assert format_number(1234.5678, ",.2f") == "1,234.57" and format_number(4.0, "") == "4"


def test_an_mfu_beyond_belief_is_said(tmp_path):
    study = study_of(tmp_path, [({}, 3.0, 10.0)], {})
    assert not any("MFU" in said for said in findings(study).sentences)
    (run,) = (tmp_path / "sweep").glob("r0")
    (row,) = RunDir(run).read_record()
    write_json(run / "record.json", {"rows": [row | {"mfu": 1.4}]})
    said = findings(load_study([tmp_path / "sweep"])).sentences
    assert "1 run has an MFU above 1: the peak that it is compared with is too low." in said


def two_arms(root, differences, seeds_move=0.2):
    """Return a study of fp32 and bf16 whose seeds move both alike, with bf16 worse by `differences`."""
    runs = []
    for seed, difference in enumerate(differences):
        base = 3.0 + seeds_move * seed
        runs += [({"precision": "fp32", "seed": seed}, base, 10.0)]
        runs += [({"precision": "bf16", "seed": seed}, base + difference, 5.0)]
    axes = {"precision": ["fp32", "bf16"], "seed": list(range(len(differences)))}
    return study_of(root, runs, axes)


def test_what_a_seed_does_to_both_arms_is_no_noise_between_them(tmp_path):
    said = findings(two_arms(tmp_path, [0.010, 0.011, 0.009, 0.010])).sentences
    assert any("The second, bf16, is 0.0100 behind, more than seeds explain" in s for s in said)
    assert any(s.startswith("precision bf16 against fp32") and "more than seeds explain" in s for s in said)


def test_the_best_two_and_the_effect_between_them_are_judged_alike(tmp_path):
    said = findings(two_arms(tmp_path, [0.03, -0.02, 0.02, -0.01])).sentences
    assert any("The second, bf16, is 0.0050 behind: within noise" in s for s in said)
    assert any(s.startswith("precision bf16 against fp32") and "within noise" in s for s in said)


def test_an_interval_too_narrow_for_the_digits_is_not_shown_as_none(tmp_path):
    said = findings(two_arms(tmp_path, [0.01, 0.010001, 0.009999])).sentences
    assert any("+0.0100 ± 0.000002 (95 %" in s for s in said)


def slowed(study, at: int):
    """Return a study in which other programs slowed the run at this position down."""
    table = study.table.copy()
    table["cpu_wait_fraction"] = [0.3 if row == at else 0.01 for row in range(len(table))]
    return replace(study, table=table)


def test_a_cost_that_was_measured_beside_other_work_has_its_mark_in_every_sentence(tmp_path):
    runs = [({"precision": "fp32"}, 2.0, 10.0), ({"precision": "bf16"}, 2.01, 5.0)]
    study = study_of(tmp_path, runs, {"precision": ["fp32", "bf16"]})
    said = findings(slowed(study, 0)).sentences
    assert said[0].endswith("2.0000 nats, for ~10 s of training time.")
    assert "~0.50x the training time" in said[1] and said[3].endswith("at ~0.50x the training time.")
    assert "1 row was measured while other work was on the device: alone it would be faster." in said
    assert not any("~" in sentence for sentence in findings(slowed(study, -1)).sentences)
    by_flops = findings(slowed(study, 0), cost="train_flops").sentences
    assert not any("~" in sentence for sentence in by_flops), "FLOPs do not depend on other work"


def test_the_mean_cost_of_an_arm_has_the_mark_of_any_of_its_runs(tmp_path):
    runs = [
        ({"precision": p, "seed": s}, 2.0 + 0.01 * s + 0.001 * (p == "bf16"), 10.0)
        for p in ("fp32", "bf16")
        for s in (0, 1)
    ]
    study = study_of(tmp_path, runs, {"precision": ["fp32", "bf16"], "seed": [0, 1]})
    assert "for ~10 s of training time" in headline(slowed(study, 0))
    assert "~" not in headline(slowed(study, 3))
