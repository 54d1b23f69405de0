"""Links in the folders of runs that lead out of the outputs are refused before anything is written through them."""

import os
from pathlib import Path

import pytest

from lmexp.config.trust import trusting
from lmexp.errors import UserError
from lmexp.launch.control import cancel, set_back
from lmexp.runs.coordinators import ask_to_stop, coordinating
from lmexp.runs.directory import RunDir
from lmexp.runs.log import last_lines
from lmexp.runs.manifest import read_manifest
from lmexp.runs.scores import add_scores
from tests.report.synthetic import config


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder that is nobody's run, with files of the names that a run writes, appends to or deletes."""
    folder = tmp_path / "precious"
    RunDir.create(folder, config("gpt_nano", 2, "fp32"))
    for name in ("log.txt", "metrics.jsonl", "last.ckpt", ".lock", "sweep.log", ".cancel"):
        (folder / name).write_text("precious")
    return folder


def content_of(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "part", ["", "checkpoints", "checkpoints/last.ckpt", "log.txt", "metrics.jsonl", ".lock", ".scores.json.lock"]
)
def test_a_run_with_a_link_out_of_the_outputs_is_left_alone(tmp_path: Path, precious: Path, part: str):
    folder = tmp_path / "outputs" / "s"
    run = RunDir.create(folder / "a-1", config("gpt_nano", 2, "fp32"))
    if part:
        link, target = run.path / part, precious if part == "checkpoints" else precious / Path(part).name
    else:
        link, target = run.path, precious
        run.path.rename(folder / "b-2")
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))
    before = content_of(precious)
    with pytest.raises(UserError, match=f"a-1.* leads out of .*add --trust {target}"):
        cancel(folder, print)
    with pytest.raises(UserError, match=f"add --trust {target}"):
        set_back(folder, folder.parent, ["a-1"], ("cancelled",), fresh=True)
    with pytest.raises(UserError, match=f"add --trust {target}"):
        add_scores(run, "copa", {"accuracy": 1.0}, {})
    with pytest.raises(UserError, match=f"add --trust {target}"):
        run.lock()  # as a worker does, whoever has started it
    assert content_of(precious) == before
    with trusting([str(precious)]):
        cancel(folder, print)
    assert run.read_state().reason == "the sweep was cancelled"


@pytest.mark.parametrize("part", ["log.txt", "metrics.jsonl", ".lock", "state.json", "record.json", "config.yaml"])
def test_a_fifo_or_a_device_in_place_of_a_file_is_said_and_nothing_waits_for_it(tmp_path: Path, part: str):
    folder = tmp_path / "outputs" / "s"
    run = RunDir.create(folder / "a-1", config("gpt_nano", 2, "fp32"))
    (run.path / part).unlink(missing_ok=True)
    os.mkfifo(run.path / part)
    assert run.read_curve() == [] and run.read_record() == [] and last_lines(run.log, 3) == ([], 0)
    with pytest.raises(UserError, match=f"{part} is neither a file nor a folder"):
        cancel(folder, print)
    (run.path / part).unlink()
    (run.path / part).symlink_to("/dev/zero")
    assert run.read_curve() == [] and run.read_record() == [] and last_lines(run.log, 3) == ([], 0)


def test_a_manifest_that_is_no_file_is_said(tmp_path: Path):
    os.mkfifo(tmp_path / "sweep.json")
    with pytest.raises(UserError, match=r"sweep\.json cannot be read: it is a FIFO"):
        read_manifest(tmp_path)


def test_links_inside_the_outputs_and_to_a_sweep_elsewhere_are_the_users_own(tmp_path: Path):
    far = tmp_path / "large_disk" / "s"
    RunDir.create(far / "a-1", config("gpt_nano", 2, "fp32"))
    (far / "b-2").symlink_to("a-1")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "s").symlink_to(far)
    assert {run.name for run in cancel(tmp_path / "outputs" / "s", print)} == {"a-1", "b-2"}


def test_a_sweeps_folder_is_not_written_through_links(tmp_path: Path, precious: Path):
    folder = tmp_path / "outputs" / "s"
    folder.mkdir(parents=True)
    before = content_of(precious)
    (folder / ".cancel").symlink_to(precious / ".cancel")
    ask_to_stop(folder)  # replaces the link
    assert content_of(precious) == before
    (folder / "sweep.log").symlink_to(precious / "sweep.log")
    with pytest.raises(UserError, match=r"sweep\.log leads out of"), coordinating(folder):
        pass


def test_a_file_that_is_gone_since_its_folder_was_listed_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Some file systems list no kinds of files, so the kind of one that is gone by then is not known."""
    run = RunDir.create(tmp_path / "s" / "a-1", config("gpt_nano", 2, "fp32"))
    os.mkfifo(run.path / "gone")
    listed = list(os.scandir(run.path))
    monkeypatch.setattr("lmexp.runs.links.os.scandir", lambda folder: listed if Path(folder) == run.path else [])
    with pytest.raises(UserError, match="neither a file nor a folder"):
        run.lock()
    (run.path / "gone").unlink()
    assert run.lock() is not None
