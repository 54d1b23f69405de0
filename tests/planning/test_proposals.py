"""`plan --max-...`: what is proposed is a command, and that command's own plan is within the cap."""

import shlex
from pathlib import Path

import pytest

from lmexp.config.identity import run_id
from lmexp.errors import UserError
from lmexp.planning.proposals import affordable, simulated
from lmexp.study.proposals import PlannedCommand

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
def command(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedCommand:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "six.yaml").write_text(SWEEP)
    return PlannedCommand("six", [f"data.path={text}", "data.document=paragraph"], Path("outputs"))


@pytest.mark.parametrize(
    "share", [pytest.param(0.9, marks=pytest.mark.slow), 0.5, pytest.param(0.2, marks=pytest.mark.slow)]
)
def test_the_plan_of_the_proposed_command_is_within_the_cap(command: PlannedCommand, share: float):
    planned = command.plan(command.overrides)
    most = share * sum(row["train_flops"] for row in planned.rows)
    found = affordable(command, planned, {"train_flops": most})
    assert [proposal["kind"] for proposal in found["proposals"]] == ["subset", "scale"]
    for proposal in found["proposals"]:
        verb, name, *words = shlex.split(proposal["command"])[1:]
        assert (verb, name) == ("sweep", "six")
        again = command.plan(words)
        assert 0 < sum(row["train_flops"] for row in again.rows) <= most
        if proposal["kind"] == "subset":  # what stays is the very same run
            assert set(map(run_id, again.configs)) < set(map(run_id, planned.configs))
        else:
            assert len(again.cells) == len(planned.cells)


def test_what_fits_is_left_as_it_is(command: PlannedCommand):
    planned = command.plan(command.overrides)
    assert affordable(command, planned, {"train_flops": 1e15})["fits"]


def test_a_cap_below_the_cheapest_run_is_refused_with_its_cost(command: PlannedCommand):
    planned = command.plan(command.overrides)
    with pytest.raises(UserError, match="nothing of six fits: the cheapest run takes"):
        affordable(command, planned, {"train_flops": 1e3})


def test_dollars_without_a_speed_are_refused(command: PlannedCommand):
    planned = command.plan(command.overrides)
    with pytest.raises(UserError, match="price of 6 of 6 runs is not known: `lmexp plan six --measure`"):
        affordable(command, planned, {"dollars": 1.0})


@pytest.mark.slow
def test_a_cheaper_design_is_a_command_whose_plan_is_cheaper(command: PlannedCommand):
    grid = "{model.d_model: [32, 48, 64, 96, 128], budget.tokens: [51_200, 102_400, 204_800, 409_600]}"
    wide_file = SWEEP.replace("{model.d_model: [32, 64, 128]}", grid).replace("  seeds: 2\n", "")
    Path("sweeps/wide.yaml").write_text(wide_file)
    wide = PlannedCommand("wide", command.overrides, command.output_dir)
    planned = wide.plan(wide.overrides)
    found = simulated(wide, planned, "epoch", 0.01, None)
    assert found["runs"] == 20 and not found["refusals"] and found["rehearsals"] > 0
    cheaper = found["cheaper"]
    after = wide.plan(shlex.split(cheaper["command"])[3:])
    spent = sum(row["train_flops"] for row in after.rows)
    assert spent == cheaper["total"]["train_flops"] < sum(row["train_flops"] for row in planned.rows)
    assert cheaper["runs"] == len(after.rows) == 20 - cheaper["dropped"] + cheaper["added"]
    assert cheaper["rehearsed_widest"] < 1.5  # by the real fit, not only by the information that it was chosen by


def test_no_drawn_loss_is_ever_a_record(command: PlannedCommand):
    planned = command.plan(command.overrides)
    before = sorted(command.output_dir.rglob("*"))
    document = simulated(command, planned, "hoffmann", 0.01, None)
    # 257 bytes: ln 257 = 5.549; hoffmann expects more than 9 nats of models this small
    assert document["uniform_loss"] == pytest.approx(5.549, abs=1e-3)
    assert "for all planned runs" in document["law_warning"] and "against 5.55" in document["law_warning"]
    assert sorted(command.output_dir.rglob("*")) == before
