"""`plan --max-...`: what is proposed is a command, and that command's own plan is within the cap."""

import shlex
from pathlib import Path

import pytest

from lmexp.cli.proposals import Asked, affordable, simulated
from lmexp.config.identity import run_id
from lmexp.errors import UserError

SWEEP = """# A study of six runs
# @package _global_
defaults: [{override /model: gpt_nano}, {override /data: text}, {override /tokenizer: byte}, _self_]
sweep:
  grid: {model.d_model: [32, 64, 128]}
  seeds: 2
model: {context: 32}
batch: {tokens: 256}
budget: {tokens: 51_200}
"""


@pytest.fixture
def asked(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "six.yaml").write_text(SWEEP)
    return Asked("six", [f"data.path={text}", "data.document=paragraph"], Path("outputs"), None)


@pytest.mark.parametrize(
    "share", [pytest.param(0.9, marks=pytest.mark.slow), 0.5, pytest.param(0.2, marks=pytest.mark.slow)]
)
def test_the_plan_of_the_proposed_command_is_within_the_cap(asked: Asked, share: float):
    resolved, rows = asked.plan(asked.words)
    most = share * sum(row["train_flops"] for row in rows)
    found = affordable(asked, resolved, rows, {"train_flops": most})
    assert [proposal["kind"] for proposal in found["proposals"]] == ["subset", "scale"]
    for proposal in found["proposals"]:
        verb, name, *words = shlex.split(proposal["command"])[1:]
        assert (verb, name) == ("sweep", "six")
        again, planned = asked.plan(words)
        assert 0 < sum(row["train_flops"] for row in planned) <= most
        if proposal["kind"] == "subset":  # what stays is the very same run
            before = {run_id(planned.config) for planned in resolved.runs}
            assert {run_id(planned.config) for planned in again.runs} < before
        else:
            assert len(again.runs) == len(resolved.runs)


def test_what_fits_is_left_as_it_is(asked: Asked):
    resolved, rows = asked.plan(asked.words)
    assert affordable(asked, resolved, rows, {"train_flops": 1e15})["fits"]


def test_a_cap_below_the_cheapest_run_is_refused_with_its_cost(asked: Asked):
    resolved, rows = asked.plan(asked.words)
    with pytest.raises(UserError, match="nothing of six fits: the cheapest run takes"):
        affordable(asked, resolved, rows, {"train_flops": 1e3})


def test_dollars_without_a_speed_are_refused(asked: Asked):
    resolved, rows = asked.plan(asked.words)
    with pytest.raises(UserError, match="price of 6 of 6 runs is not known: `lmexp plan six --measure`"):
        affordable(asked, resolved, rows, {"dollars": 1.0})


@pytest.mark.slow
def test_a_cheaper_design_is_a_command_whose_plan_is_cheaper(asked: Asked):
    grid = "{model.d_model: [32, 48, 64, 96, 128], budget.tokens: [51_200, 102_400, 204_800, 409_600]}"
    wide_file = SWEEP.replace("{model.d_model: [32, 64, 128]}", grid).replace("  seeds: 2\n", "")
    Path("sweeps/wide.yaml").write_text(wide_file)
    wide = Asked("wide", asked.words, asked.outputs, asked.config_dir)
    resolved, rows = wide.plan(wide.words)
    found = simulated(wide, resolved, rows, "epoch", 0.01, None)
    assert found["runs"] == 20 and not found["refusals"] and found["rehearsals"] > 0
    cheaper = found["cheaper"]
    _, planned = wide.plan(shlex.split(cheaper["command"])[3:])
    spent = sum(row["train_flops"] for row in planned)
    assert spent == cheaper["total"]["train_flops"] < sum(row["train_flops"] for row in rows)
    assert cheaper["runs"] == len(planned) == 20 - cheaper["dropped"] + cheaper["added"]
    assert cheaper["rehearsed_widest"] < 1.5  # by the real fit, not only by the information that it was chosen by


def test_no_drawn_loss_is_ever_a_record(asked: Asked):
    resolved, rows = asked.plan(asked.words)
    before = sorted(asked.outputs.rglob("*"))
    simulated(asked, resolved, rows, "hoffmann", 0.01, None)
    assert sorted(asked.outputs.rglob("*")) == before
