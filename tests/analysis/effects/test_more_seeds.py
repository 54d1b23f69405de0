"""The command that is proposed to know the noise makes the cell that it names."""

import shlex
from pathlib import Path

from lmexp.analysis.effects.more_seeds import about_unknown_noise
from lmexp.analysis.table import load_study
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import write_manifest


def test_the_command_repeats_the_cell_with_the_overrides_of_its_sweep(text: Path, tmp_path: Path):
    words = ["model=gpt_nano", "model.n_layers=1,2", "data=text", f"data.path={text}", "data.document=paragraph"]
    words += ["tokenizer=byte", "budget.tokens=20_000", "launcher.slots=1", "logger=none"]
    outputs = tmp_path / "outputs"
    sweep = resolve_sweep(None, words, outputs, name="mine")
    rows = [{"slug": f"n{n}", "loss": 3.0 - n, "train_seconds": float(n), "status": "done"} for n in (1, 2)]
    for planned, row in zip(sweep.runs, rows, strict=True):
        run = RunDir.create(planned.run.path, planned.config)
        run.write_record([row | {"run_id": planned.identity}])
        run.update_state(state="done")
    write_manifest(sweep.folder, sweep.manifest())
    (said,) = about_unknown_noise(load_study([sweep.folder]), "loss", "train_seconds")
    command = shlex.split(said.split("`")[1])
    assert command[:4] == ["lmexp", "train", "-m", "--name"] and command[4] == "mine"
    assert "budget.tokens=20_000" in command and command[-2:] == ["model.n_layers=1", "sweep.seeds=4"]
    assert not any(word.startswith(("launcher", "logger")) for word in command)
    again = resolve_sweep(None, command[5:], outputs, name=command[4])
    assert sweep.runs[0].identity in [planned.identity for planned in again.runs] and len(again.runs) == 4
