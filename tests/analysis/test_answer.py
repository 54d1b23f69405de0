"""The answer to a study's question follows from its design, in at most five sentences."""

import re
import shlex
from dataclasses import replace

import pytest

from lmexp.analysis.answer import MAX_SENTENCES
from lmexp.analysis.findings import findings
from lmexp.analysis.scaling.answers import answer as fitted_answer
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.scaling.words import headline
from lmexp.analysis.table import load_study
from lmexp.config.cells import expand
from lmexp.config.sweeps import SweepSpec
from lmexp.files import read_json, write_json
from lmexp.study.versus import compare
from tests.analysis.lawful import best, lawful_study
from tests.analysis.test_findings import study_of
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def lawful(tmp_path_factory):
    return load_study([lawful_study(tmp_path_factory.mktemp("outputs"), arms=[("gpt", "fp32")])])


def number(text: str) -> float:
    """Return a number that is written with the prefix of a power of ten."""
    return float(text[:-1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[text[-1]]


def test_a_grid_of_sizes_and_tokens_is_answered_by_the_best_size_and_not_by_its_axes(lawful):
    found = findings(lawful)
    params = best(float(lawful.table["train_flops"].max()))[0]
    low, high = re.search(r"the best model has \S+ \((\S+) to (\S+)\) parameters", found.answer[0]).groups()
    assert number(low) <= params <= number(high)
    assert any(sentence.startswith("10 times the compute would give a loss of") for sentence in found.answer)
    assert len(found.answer) <= MAX_SENTENCES
    assert not any("against" in sentence for sentence in found.sentences)


def test_the_answer_has_the_numbers_of_fit(lawful):
    assert headline(fitted_answer(points_of_study(lawful)))[0] == findings(lawful).answer[0]


def test_a_second_precision_makes_the_grid_a_comparison_of_settings(tmp_path):
    study = load_study([lawful_study(tmp_path, widths=(32, 64), tokens=(1e6, 4e6))])
    assert any(sentence.startswith("precision bf16 against fp32") for sentence in findings(study).sentences)


def test_without_seeds_the_answer_says_after_the_best_run_what_it_takes_to_know_the_noise(tmp_path):
    runs = [({"precision": "fp32"}, 2.0, 9.0), ({"precision": "bf16"}, 2.1, 5.0)]
    axes = {"precision": ["fp32", "bf16"]}
    found = findings(study_of(tmp_path, runs, axes))
    assert found.answer[0].startswith("r0 has the lowest loss")
    said = found.answer[2]
    assert found.first[-1].endswith("would show it, for about 15 s."), "a page begins with no commands"
    assert said.startswith("No cell has two finished seeds, so it is unknown which differences are noise; ")
    assert "3 more seeds of r1 would show it, for about 15 s: `" in said
    command, report = re.findall(r"`(.*?)`", said)
    assert report == "lmexp report sweep --all"
    words = shlex.split(command)
    assert words[:3] == ["lmexp", "sweep", "sweep"]
    cells = expand(SweepSpec(grid=axes), [word for word in words[3:] if not word.startswith("sweep.")]).cells
    assert cells == [{"precision": "bf16"}], "it names the cheapest cell and no other"
    assert words[-1] == "sweep.seeds=4"


def test_a_name_in_a_command_is_quoted_for_the_shell(tmp_path):
    runs = [({"precision": "fp32"}, 2.0, 9.0), ({"precision": "bf16"}, 2.1, 5.0)]
    study = study_of(tmp_path, runs, {"precision": ["fp32", "bf16"]}, name="a; rm -rf b")
    assert "`lmexp sweep 'a; rm -rf b' precision=bf16" in findings(study).answer[2]


def test_a_search_is_answered_by_its_best_run_and_one_of_several_objectives_by_the_ends_of_their_frontier(tmp_path):
    folder = write_study(tmp_path)
    manifest = read_json(folder / "sweep.json")
    write_json(folder / "sweep.json", manifest | {"objectives": ["loss"]})
    one = findings(load_study([folder])).answer
    assert one[0].startswith("gpt_tiny-l4-fp32-s0 has the lowest loss")
    write_json(folder / "sweep.json", manifest | {"objectives": ["loss", "train_seconds"]})
    study = load_study([folder])
    ends = findings(study).answer[1]
    done = study.table[study.table["state"] == "done"]
    cheapest = done.loc[done["train_seconds"].astype(float).idxmin()]
    assert "finished runs are on the frontier of loss and training time, from gpt_tiny-l4-fp32-s0 (2.5000 nats" in ends
    assert f"to {cheapest['slug']} ({cheapest['loss']:.4f} nats" in ends


def test_nothing_is_said_twice_and_no_answer_is_longer_than_five_sentences(lawful, tmp_path):
    for study in (lawful, load_study([write_study(tmp_path)]), replace(lawful, objectives=("loss",))):
        found = findings(study)
        assert len(set(found.sentences)) == len(found.sentences) and len(found.answer) <= MAX_SENTENCES


@pytest.mark.parametrize(
    ("params", "first"),
    [
        ((112_000, 121_000, 129_000, 143_000), "n_layers 1, d_model 96 has the lowest mean loss"),
        ((50_000, 100_000, 200_000, 400_000), "At 40G FLOPs the lowest loss is that of 400k parameters"),
    ],
)
def test_depths_and_widths_of_one_size_are_answered_by_the_best_shape_and_sizes_by_the_best_size(
    tmp_path, params, first
):
    axes = {"model.n_layers": [8, 4, 2, 1], "model.d_model": [32, 48, 64, 96]}
    shapes = list(zip(*axes.values(), strict=True))
    cells = [
        {"model.n_layers": depth, "model.d_model": width, "seed": seed} for depth, width in shapes for seed in (0, 1)
    ]
    runs = [(cell, 4.0 - at // 2 / 5 + cell["seed"] / 100, 9.0) for at, cell in enumerate(cells)]
    study = study_of(tmp_path, runs, axes | {"seed": [0, 1]})
    sizes = [size for size in params for _ in range(2)]
    table = study.table.assign(n_params=sizes, n_params_matmul=sizes, train_flops=4e10)
    table["tokens"] = 4e10 / 6 / table["n_params"]
    assert findings(replace(study, table=table)).answer[0].startswith(first)


def test_of_two_arms_the_answer_has_the_speedup_of_versus(tmp_path):
    tokens = [1e6 * 3**n for n in range(6)]
    study = load_study([lawful_study(tmp_path, widths=(64,), tokens=tokens, worse=0.2)])
    (said,) = [sentence for sentence in findings(study).answer if sentence.startswith("For equal quality")]
    result = compare([tmp_path / "lawful"], arms=["precision"], costs=["flops"])
    assert result.sentences[0].startswith(said) and "times the training compute" in said

    few = load_study([lawful_study(tmp_path, name="few", widths=(64,), tokens=tokens[:2], worse=0.2)])
    assert not any(s.startswith("For equal quality") for s in findings(few).answer), "its smallest budget gives none"


def test_where_seeds_were_added_by_looking_no_test_for_a_fixed_number_of_them_judges(tmp_path):
    runs = [
        ({"precision": p, "seed": s}, 3.0 + 0.02 * s + 0.1 * (p == "bf16"), 1.0)
        for p in ("fp32", "bf16")
        for s in range(3)
    ]
    axes = {"precision": ["fp32", "bf16"], "seed": [0, 1, 2]}
    fixed = findings(study_of(tmp_path / "fixed", runs, axes))
    looks = {"quality": "loss", "difference": 0.01, "cap": 5}
    looked = findings(study_of(tmp_path / "looked", runs, axes, looks=looks))
    assert any("more than seeds explain" in sentence for sentence in fixed.answer)
    assert not any("seeds explain" in sentence or "Holm" in sentence for sentence in looked.sentences)
    assert looked.answer[1].startswith("Look at 3 seeds: fp32 has the best mean loss; bf16 behind by 0.1")
