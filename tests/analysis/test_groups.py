"""Means over seeds: independent units, what does not compare kept apart, and noise told from effects."""

import itertools

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.effects.effects import all_effects, effects, noise_floor
from lmexp.analysis.effects.power import seeds_to_show
from lmexp.analysis.findings import findings
from lmexp.analysis.groups import default_grouping, grouped
from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.files import write_json
from lmexp.runs.directory import RunDir
from tests.report.synthetic import config, record_of

# Losses by precision and seed: seeds move both arms alike, so the paired difference is far less noisy than an arm.
SEEDS = (0.00, 0.05, -0.04)


def study_of(root, gain=0.01, seeds=SEEDS, jitter=0.001, **changes):
    cells = []
    for (model, precision), (seed, moved) in itertools.product(
        itertools.product(("gpt_nano", "gpt_tiny"), ("fp32", "bf16")), enumerate(seeds)
    ):
        made = config(model, 2, precision, seed, "sweep")
        loss = 3.0 - 0.5 * (model == "gpt_tiny") + moved + (gain + jitter * (-1) ** seed) * (precision == "bf16")
        row = record_of(made, loss) | {name: value(seed) for name, value in changes.items()}
        run = RunDir.create(root / "sweep" / made.run.slug, made)
        run.write_record([row])
        run.update_state(state="done")
        values = {"model": model, "precision": precision, "seed": seed}
        cells.append({"run_id": made.run.id, "path": made.run.slug, "values": values})
    axes = {"model": ["gpt_nano", "gpt_tiny"], "precision": ["fp32", "bf16"], "seed": list(range(len(seeds)))}
    write_json(root / "sweep" / "sweep.json", {"name": "sweep", "axes": axes, "cells": cells})
    return load_study([root / "sweep"])


def test_a_group_has_mean_deviation_interval_and_n(tmp_path):
    study = study_of(tmp_path)
    assert default_grouping(study) == "`model`, `precision`"
    found = grouped(study.table, "model, precision", ["loss", "train_seconds"])
    assert found["n"].tolist() == [3] * 4
    first = found.iloc[0]
    assert first["loss"] == pytest.approx(3 + np.mean(SEEDS)) and first["loss_sd"] == pytest.approx(
        np.std(SEEDS, ddof=1)
    )
    assert first["loss_ci95"] == pytest.approx(4.302653 * np.std(SEEDS, ddof=1) / 3**0.5, rel=1e-6)


def test_rows_of_one_unit_are_one_value():
    table = pd.DataFrame({"unit": ["a", "a", "a", "b"], "model": "m", "loss": [1.0, 2.0, 3.0, 4.0]})
    (row,) = grouped(table, "model", ["loss"]).to_dict("records")
    assert row["n"] == 2 and row["loss"] == 3.0 and row["loss_sd"] == pytest.approx(2**0.5)


def test_what_does_not_compare_is_not_averaged_and_what_else_is_mixed_is_said():
    table = pd.DataFrame(
        {
            "run_id": list("abcd"), "model": "m", "loss": [1.0, 2.0, 3.0, 4.0], "device_name": ["x", "x", "y", None],
            "git_sha": ["1", "2", "3", "3"], "exclusive": [True, False, True, True],
        }
    )  # fmt: skip
    found = grouped(table, "model", ["loss"])
    assert found["device_name"].astype(object).where(found["device_name"].notna(), None).tolist() == ["x", "y", None]
    assert found["n"].tolist() == [2, 1, 1]
    assert found["mixed"].tolist() == ["code, speeds beside other work", "", ""]


def test_losses_over_different_shares_of_the_targets_are_not_averaged():
    table = pd.DataFrame({"run_id": list("ab"), "model": "m", "loss": [1.0, 2.0], "targets_cut": [0.0, 0.2]})
    assert grouped(table, "model", ["loss"])["n"].tolist() == [1, 1]


def test_infinite_and_missing_numbers_are_not_averaged():
    table = pd.DataFrame({"model": "m", "loss": [1.0, np.inf, np.nan, 3.0], "state": ["done"] * 4})
    (row,) = grouped(table, "model", ["loss"]).to_dict("records")
    assert (row["n"], row["loss"]) == (2, 2.0)
    with pytest.raises(UserError, match="holds no numbers"):
        grouped(table, "model", ["state"])


def test_a_paired_difference_is_told_where_arms_share_seeds(tmp_path):
    study = study_of(tmp_path)
    (effect,) = effects(study, "precision", "loss", "train_seconds")
    assert effect.mean == pytest.approx(0.01 + 0.001 / 3) and len(effect.changes) == 6 and effect.noise.df == 4
    told = all_effects(study, "loss", "train_seconds")["precision"][0]
    assert told.is_within_noise is False and told.adjusted >= told.p
    said = next(s for s in findings(study).sentences if s.startswith("precision bf16 against fp32"))
    assert "6 pairs of equal seed), more than seeds explain, 0.50x the training time, 2.00x the tokens/s." in said


def test_a_difference_within_noise_is_called_that(tmp_path):
    study = study_of(tmp_path, gain=0.0, jitter=0.02)
    assert all_effects(study, "loss", "train_seconds")["precision"][0].is_within_noise is True
    said = findings(study).sentences
    assert said[0].startswith("gpt_tiny, fp32 has the lowest mean loss, 2.5033 ± 0.0")
    assert said[1].startswith("The second, gpt_tiny, bf16, is 0.0067 behind: within noise, at 0.50x the training time.")
    assert any("precision bf16 against fp32: loss +0.0067" in s and "within noise" in s for s in said)


def test_ratios_of_time_are_not_taken_over_devices(tmp_path):
    device = iter(range(100))
    study = study_of(tmp_path, device_name=lambda _: f"gpu{next(device)}")
    (effect,) = effects(study, "precision", "loss", "train_seconds")
    assert effect.cost_ratio is None and effect.speed_ratio is None
    assert effects(study, "precision", "loss", "train_flops")[0].cost_ratio == pytest.approx(1)
    assert any("12 devices" in s for s in findings(study).sentences)


def test_seeds_of_different_texts_are_no_noise(tmp_path):
    study = study_of(tmp_path, data_fingerprint=lambda seed: f"text {seed}")
    assert noise_floor(study, "loss") is None


def test_how_many_seeds_is_answered_from_the_studys_own_noise(tmp_path):
    found = seeds_to_show(study_of(tmp_path), "loss", 0.01)
    unpaired, paired = found.ways
    assert unpaired.noise.sd == pytest.approx(np.std(SEEDS, ddof=1), rel=0.05) and unpaired.noise.df == 8
    assert unpaired.seeds > 100 and paired.seeds < 10  # pairs share what their seed does
    assert found.sentences[1].startswith(f"{unpaired.seeds} seeds an arm")
    with pytest.raises(UserError, match="a difference above 0"):
        seeds_to_show(study_of(tmp_path / "again"), "loss", 0)


def test_without_repeated_seeds_nobody_knows_how_many(tmp_path):
    found = seeds_to_show(study_of(tmp_path, seeds=(0.0,)), "loss", 0.01)
    assert found.ways == () and "Nobody knows" in found.sentences[0]


def test_seeds_that_change_nothing_say_nothing_of_noise(tmp_path):
    study = study_of(tmp_path, seeds=(0.0, 0.0), jitter=0.0)
    assert any("they say nothing of noise" in s for s in findings(study).sentences)
    assert not any("more than seeds explain" in s for s in findings(study).sentences)
    assert "say nothing of noise" in seeds_to_show(study, "loss", 0.01).sentences[0]


def test_of_many_axes_only_those_that_do_most_are_told(tmp_path):
    axes = [f"axis.{i}" for i in range(8)]
    cells = []
    for i in range(len(axes) + 1):
        values = {axis: int(j < i) for j, axis in enumerate(axes)}
        made = config("gpt_nano", 2, "fp32", slug=f"r{i}", seed=i)
        run = RunDir.create(tmp_path / "s" / f"r{i}", made)
        run.write_record([record_of(made, 3.0 - i**2 * 0.01)])
        run.update_state(state="done")
        cells.append({"run_id": made.run.id, "path": f"r{i}", "values": values})
    write_json(tmp_path / "s" / "sweep.json", {"name": "s", "axes": {axis: [0, 1] for axis in axes}, "cells": cells})
    said = findings(load_study([tmp_path / "s"])).sentences
    assert sorted(s[:6] for s in said if "against" in s) == [f"axis.{i}" for i in range(3, 8)]
    assert "axis.0, axis.1 and axis.2 move the loss by at most 0.0500." in said
