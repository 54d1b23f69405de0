"""What a fit's files hold: the numbers of a paper's table; and an earlier fit is not overwritten."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmexp.analysis.scaling.answers import Answer, answer
from lmexp.analysis.scaling.words import headline
from lmexp.report.charts.fit import fit_charts
from lmexp.report.export.fit_document import fit_document
from lmexp.report.export.fit_latex import fit_latex
from lmexp.report.page.fit import write_fit, write_fit_charts
from tests.analysis.scaling.designs import grid


@pytest.fixture(scope="module")
def found() -> Answer:
    return answer(grid(noise=0.002), [1e21], bootstraps=100, seed=3)


def test_exponents_follow_from_the_parameters(found: Answer):
    document = fit_document(found)
    law = document["laws"]["chinchilla"]
    theta, exponents = law["theta"], law["exponents"]
    alpha, beta = theta["alpha"], theta["beta"]
    assert exponents["a"]["value"] == pytest.approx(beta / (alpha + beta))
    assert exponents["b"]["value"] == pytest.approx(alpha / (alpha + beta))
    assert exponents["G"]["value"] == pytest.approx((alpha * theta["A"] / beta / theta["B"]) ** (1 / (alpha + beta)))
    best = next(row for row in document["best"] if row["by"] == "chinchilla")
    assert exponents["G"]["value"] * (1e21 / 6) ** exponents["a"]["value"] == pytest.approx(best["params"]["value"])
    assert document["seed"] == 3 and document["resamples"] == 24 and document["method"] == "jackknife over units"
    assert len(document["points_sha256"]) == 64 and document["version"]


def test_standard_errors_are_the_roots_of_the_covariance(found: Answer):
    law = found.fit.laws["chinchilla"]
    theta = np.array(list(law.theta.values()))
    by_hand = np.sqrt(23 / 24 * ((law.left_one_out - theta) ** 2).sum(axis=0))  # the jackknife's
    np.testing.assert_allclose(list(law.standard_errors.values()), by_hand)
    np.testing.assert_allclose(np.sqrt(np.diag(fit_document(found)["laws"]["chinchilla"]["covariance"])), by_hand)


def test_a_table_in_latex_has_every_law_and_number(found: Answer):
    text = fit_latex(found)
    assert text.startswith(r"\begin{tabular}") and all(
        line.count("&") == 4 for line in text.splitlines() if line.endswith(r"\\")
    )
    assert all(words in text for words in ("chinchilla", "kaplan", r"$\alpha$", "$G$", "$N_c$"))


@pytest.mark.parametrize(("floor", "place"), [(1.8172, "inside"), (1.6, "outside")])
def test_the_irreducible_loss_is_held_against_the_floor_of_the_text(floor: float, place: str, tmp_path: Path):
    with_floor = answer(replace(grid(noise=0.0005), floor=floor), [1e21], bootstraps=100)
    theta, interval = (getattr(with_floor.fit.laws["chinchilla"], name)["E"] for name in ("theta", "intervals"))
    words = f"E = {theta:.4f} ({interval[0]:.4f} to {interval[1]:.4f}) by chinchilla; the floor of this text is "
    assert f"{words}{floor:.4f}: {place} the interval." in headline(with_floor)
    document = fit_document(with_floor)
    assert document["loss_floor"] == floor and document["floor_is_inside"]["chinchilla"] is (place == "inside")
    assert "kaplan" not in document["floor_is_inside"]  # it has no E
    (file,) = (file for file in write_fit_charts(fit_charts(with_floor), tmp_path, ["svg"]) if "fit-loss" in file.name)
    assert f"no model can beat {floor:g}" in file.read_text()


def test_an_earlier_fit_of_another_question_is_kept(found: Answer, tmp_path: Path):
    write_fit(found, "points", tmp_path)
    write_fit(found, "points", tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"fit.html", "fit.json"}
    first = (tmp_path / "fit.json").read_text()
    write_fit(answer(grid(noise=0.002), [1e22], bootstraps=100), "points", tmp_path)
    (kept,) = (file for file in tmp_path.glob("fit-*.json"))
    assert kept.read_text() == first and kept.with_suffix(".html").is_file()
    assert json.loads((tmp_path / "fit.json").read_text())["best"][0]["flops"] == 1e22


@pytest.mark.parametrize("content", ["{}", '{"best": {"a": 1}}', "[1]", "not json", '{"best": [1]}'])
def test_a_file_of_that_name_by_another_program_is_kept(found: Answer, tmp_path: Path, content: str):
    (tmp_path / "fit.json").write_text(content)
    write_fit(found, "points", tmp_path)
    (kept,) = tmp_path.glob("fit-*.json")
    assert kept.read_text() == content and "laws" in json.loads((tmp_path / "fit.json").read_text())
