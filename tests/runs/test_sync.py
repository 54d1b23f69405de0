"""Rebuilt mirrors hold what the run directories hold, once. Real libraries, no network."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lmexp.config.schema import RunConfig, RunInfo
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import Cell, Manifest, write_manifest
from lmexp.runs.mirrors import wandb as wandb_mirror
from lmexp.runs.mirrors.open import open_mirror
from lmexp.runs.state import State
from lmexp.runs.sync import attach_to_agent, check_agent, sync
from tests.runs.test_mirrors import (
    CURVE,
    KEY,
    RECORD,
    WANDB_CURVE,
    config_for,
    mlflow_parents,
    mlflow_runs,
    nobody_logged_in,  # noqa: F401  a fixture that is used by itself
    points_of,
    read_tensorboard,
    read_trackio,
    read_wandb,
    trackio,  # noqa: F401
    wandb_pieces,
)
from tests.runs.wandb_server import CONSOLE, SUMMARY, WandbServer, wandb_server

Make = Callable[..., RunDir]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "sizes"


@pytest.fixture
def make(sweep: Path) -> Make:
    """Make a run in the sweep's folder, with a curve, and a record when it is done."""

    def make(identity: str, state: str = "done", curve: list[dict[str, Any]] = CURVE, **logger: Any) -> RunDir:
        info = RunInfo(id=identity, sweep="sizes", slug=f"slug-of-{identity}")
        config = config_for(**{"name": "wandb", **logger}).model_copy(update={"run": info})
        run = RunDir.create(sweep / f"n_layers-1-{identity}", config)
        for point in curve:
            run.append_point(point)
        run.update_state(state=state)
        if state == "done":
            run.write_record([RECORD | {"run_id": identity, "loss": 5.0}, RECORD | {"run_id": identity}])
        return run

    return make


def results(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["state"], row["result"]) for row in rows]


def only_wandb_piece(run: RunDir) -> dict[str, Any]:
    [piece] = wandb_pieces(run)
    return read_wandb(piece)


def test_each_run_becomes_one_clean_wandb_run_however_often(make: Make, sweep: Path, capfd: Any) -> None:
    runs = [make("a1"), make("b2")]
    open_mirror(runs[0].read_config(), runs[0])  # an attempt that was killed
    said: list[str] = []
    for _ in range(2):
        rows = sync(sweep, {}, said.append)
    assert results(rows) == [("done", "mirrored")] * 2
    assert said == ["n_layers-1-a1: mirrored", "n_layers-1-b2: mirrored"] * 2
    for run, row in zip(runs, rows, strict=True):
        found = only_wandb_piece(run)
        assert found["run"].run_id == run.name[-2:]
        assert points_of(found["history"]) == WANDB_CURVE
        assert found["summary"]["loss"] == 4.75  # the last row of the record
        assert found["exit_code"] == 0
        assert row["place"] == str(wandb_pieces(run)[0].parent)
    assert capfd.readouterr().out == ""  # standard output is for the rows


@pytest.mark.parametrize("state", ["oom", "diverged", "timeout", "failed", "cancelled"])
def test_a_run_that_did_not_end_well_is_mirrored_as_failed(make: Make, sweep: Path, state: str) -> None:
    run = make("a1", state)
    run.write_milestones([RECORD | {"run_id": "a1", "loss": 5.0}])
    assert results(sync(sweep, {})) == [(state, "mirrored")]
    found = only_wandb_piece(run)
    assert points_of(found["history"]) == WANDB_CURVE
    assert found["summary"]["loss"] == 5.0  # of the milestone that it has reached
    assert found["exit_code"] == 1


def test_what_has_nothing_to_show_yet_is_skipped_with_its_reason(make: Make, sweep: Path) -> None:
    runs = [make("a1", "queued"), make("b2", "preempted"), make("c3", "running"), make("d4", "failed", curve=[])]
    make("e5", "running")  # its process is gone
    with runs[2].lock() or pytest.fail("nobody else has it"):
        rows = sync(sweep, {})
    assert [row["reason"] for row in rows] == [
        "it is queued",
        "it is preempted",
        "a process is at work on it",
        "it has no curve",
        None,
    ]
    assert [row["result"] for row in rows] == ["skipped"] * 4 + ["mirrored"]
    assert rows[4]["state"] == "failed"
    assert not any(wandb_pieces(run) for run in runs)


def test_another_sweeps_run_is_mirrored_and_one_that_is_not_made_yet_is_left_out(make: Make, sweep: Path) -> None:
    run = make("a1")
    mine = sweep.parent / "mine"
    mine.mkdir()
    cells = [
        Cell(run_id="a1", path=f"../{sweep.name}/{run.name}", values={"seed": 0}),
        Cell(run_id="b2", path=f"../{sweep.name}/{run.name}-gone", values={"seed": 1}),
    ]
    write_manifest(mine, Manifest(name="mine", cells=cells))
    rows = sync(mine, {})
    assert [(row["run"], row["result"]) for row in rows] == [(run.name, "mirrored")]
    assert only_wandb_piece(run)["run"].run_group == "sizes"


def test_runs_without_a_mirror_get_the_one_that_is_named(make: Make, sweep: Path) -> None:
    run = make("a1", name="none")
    with pytest.raises(UserError, match="--logger"):
        sync(sweep, {})
    with pytest.raises(UserError, match=r"logger.name='wanbd'"):
        sync(sweep, {"name": "wanbd"})
    assert not wandb_pieces(run)
    sync(sweep, {"name": "wandb", "project": "study"})
    assert only_wandb_piece(run)["run"].project == "study"
    assert run.read_config().logger.name == "none"


def test_a_server_that_cannot_be_reached_is_waited_for_once(
    make: Make, sweep: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_mirror, "CONNECT_SECONDS", 2.0)
    modes: list[str] = []
    really = wandb_mirror.WandbCopy._open
    monkeypatch.setattr(wandb_mirror.WandbCopy, "_open", lambda copy, mode: modes.append(mode) or really(copy, mode))
    runs = [make("a1"), make("b2"), make("c3")]
    rows = sync(sweep, {"mode": "online"})
    assert modes == ["online", "offline", "offline", "offline"]
    assert capfd.readouterr().out == ""
    assert results(rows) == [("done", "offline")] * 3
    assert all(row["reason"].startswith("W&B could not be reached") for row in rows)
    assert all(points_of(only_wandb_piece(run)["history"]) == WANDB_CURVE for run in runs)


@pytest.fixture
def wandbs(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server in place of W&B's; the client is the real one."""
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY[:40])
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        yield server


def test_syncing_twice_leaves_one_run_with_one_curve_on_the_server(
    make: Make, sweep: Path, wandbs: WandbServer
) -> None:
    make("a1").log.write_text("a line\n")
    for _ in range(2):
        [row] = sync(sweep, {"mode": "online"})
        assert (row["result"], row["reason"]) == ("mirrored", None)
    [(name, run)] = wandbs.runs.items()
    assert name == "a1"
    assert points_of(run.history) == WANDB_CURVE
    about = run.about
    assert (about["project"], about["groupName"], about["displayName"]) == ("lmexp", "sizes", "slug-of-a1")
    assert (about["jobType"], set(about["tags"])) == ("train", {"nano", "gpt", "causal_lm", "fp32"})
    [summary] = run.files[SUMMARY].values()
    assert json.loads(summary)["loss"] == 4.75
    assert [line.split(" ")[-2:] for line in run.files[CONSOLE].values()] == [["a", "line"]]


@pytest.mark.slow(10)
def test_an_offline_run_that_is_uploaded_later_is_the_same_run(make: Make, sweep: Path, wandbs: WandbServer) -> None:
    run = make("a1")
    sync(sweep, {"mode": "online"})
    sync(sweep, {"mode": "offline"})
    [piece] = wandb_pieces(run)
    command = [sys.executable, "-m", "wandb", "sync", str(piece.parent)]
    ended = subprocess.run(command, cwd=sweep, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert list(wandbs.runs) == ["a1"]
    assert points_of(wandbs.runs["a1"].history) == WANDB_CURVE


def test_a_mirror_that_stops_says_why_and_the_others_go_on(make: Make, sweep: Path) -> None:
    broken, whole = make("a1"), make("b2")
    (broken.path / "wandb").write_text("a file in the folder's place")
    rows = sync(sweep, {})
    assert results(rows) == [("done", "stopped"), ("done", "mirrored")]
    assert rows[0]["reason"] and rows[0]["place"] is None
    assert points_of(only_wandb_piece(whole)["history"]) == WANDB_CURVE


def test_tensorboard_has_one_clean_event_file(make: Make, sweep: Path) -> None:
    run = make("a1")
    for _ in range(2):
        [row] = sync(sweep, {"name": "tensorboard"})
    assert row["place"] == str(run.path / "tensorboard")
    events = read_tensorboard(run)
    assert [e.step for e in events.Scalars("train/loss")] == [64, 128]


@pytest.mark.parametrize("on_server", [False, True])
def test_mlflow_has_one_clean_run_each(make: Make, sweep: Path, tmp_path: Path, on_server: bool) -> None:
    make("a1")
    make("b2", "failed")
    uri = (tmp_path / "server").as_uri()
    for _ in range(2):
        rows = sync(sweep, {"name": "mlflow", **({"uri": uri} if on_server else {})})
    assert results(rows) == [("done", "mirrored"), ("failed", "mirrored")], rows
    client, found = mlflow_runs(uri if on_server else (sweep / "mlruns").as_uri())
    assert sorted(one.info.status for one in found) == ["FAILED", "FINISHED"]
    [parent] = mlflow_parents(client)
    assert {one.data.tags["mlflow.parentRunId"] for one in found} == {parent.info.run_id}
    if not on_server:  # what was replaced is gone from the disk as well
        assert len(list(sweep.glob("mlruns/[0-9]*/*/meta.yaml"))) == 3
    finished = next(one for one in found if one.info.status == "FINISHED")
    assert len(client.get_metric_history(finished.info.run_id, "train/loss")) == 2
    assert finished.data.metrics["record/loss"] == 4.75


def test_the_report_page_is_one_wandb_run_of_the_sweep_however_often(make: Make, sweep: Path) -> None:
    make("a1")
    [*_, row] = sync(sweep, {"artifacts": ["report"]})
    assert (row["run"], row["result"]) == ("report.html", "skipped")
    assert "lmexp report sizes" in row["reason"]
    (sweep / "report.html").write_text("<html>")
    for _ in range(2):
        rows = sync(sweep, {"artifacts": ["report"]})
    assert [row["result"] for row in rows] == ["mirrored"] * 2
    [piece] = sweep.glob("wandb/offline-run-*/*.wandb")
    found = read_wandb(piece)
    assert (found["run"].run_id, found["run"].job_type, found["run"].run_group) == ("report-sizes", "report", "sizes")
    [artifact] = found["artifacts"]
    assert (artifact.type, artifact.name) == ("report", "report-sizes")
    assert [entry.path for entry in artifact.manifest.contents] == ["report.html"]


def test_the_report_page_is_in_the_sweeps_own_run_in_mlflow(make: Make, sweep: Path) -> None:
    make("a1")
    (sweep / "report.html").write_text("<html>")
    rows = sync(sweep, {"name": "mlflow", "artifacts": ["report"]})
    assert [row["result"] for row in rows] == ["mirrored"] * 2
    client, _ = mlflow_runs((sweep / "mlruns").as_uri())
    [parent] = mlflow_parents(client)
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "report")] == ["report/report.html"]


def test_files_are_refused_where_they_cannot_go(make: Make, sweep: Path) -> None:
    make("a1")
    with pytest.raises(UserError, match="logger=tensorboard takes no files"):
        sync(sweep, {"name": "tensorboard", "artifacts": ["model"]})
    with pytest.raises(UserError, match="artifacts"):
        sync(sweep, {"artifacts": ["modle"]})


def test_trackio_has_one_clean_run_each(make: Make, sweep: Path, request: pytest.FixtureRequest, capfd: Any) -> None:
    there = request.getfixturevalue("trackio")
    run = make("a1")
    make("b2", "failed")
    for _ in range(2):
        rows = sync(sweep, {"name": "trackio", "project": "study"})
    assert results(rows) == [("done", "mirrored"), ("failed", "mirrored")], rows
    assert rows[0]["place"] == str(sweep.parent / ".trackio")
    assert sorted(one.name for one in there.Api().runs("study")) == ["n_layers-1-a1", "n_layers-1-b2"]
    assert len(read_trackio("study", run)) == len(CURVE) + 1  # and the record
    assert capfd.readouterr().out == ""


def test_a_view_is_a_file_offline_and_on_the_server_online(make: Make, sweep: Path, wandbs: WandbServer) -> None:
    make("a1")
    *_, row = sync(sweep, {}, with_view=True)
    assert (row["run"], row["result"], row["place"]) == ("wandb-view.json", "offline", str(sweep / "wandb-view.json"))
    assert not wandbs.views
    *_, row = sync(sweep, {"mode": "online"}, with_view=True)
    assert (row["result"], len(wandbs.views)) == ("mirrored", 1), row
    *_, row = sync(sweep, {"name": "tensorboard"}, with_view=True)
    assert (row["result"], row["reason"]) == ("skipped", "a view is for W&B")


def test_a_sweep_that_was_not_started_is_named(sweep: Path) -> None:
    with pytest.raises(UserError, match="no sweep 'sizes' was started"):
        sync(sweep, {})


# Under a W&B agent


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that `wandb agent` gives the commands that it starts."""
    for name, value in {"SWEEP_ID": "sw12", "RUN_ID": "agent42", "PROJECT": "theirs"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


def test_a_run_under_an_agent_is_the_agents(make: Make, agent: None) -> None:
    run = make("a1", project="ours")
    open_mirror(run.read_config(), run).finish(RECORD, 0)
    found = only_wandb_piece(run)
    who = found["run"]
    assert (who.run_id, who.sweep_id, who.project, who.run_group) == ("agent42", "sw12", "theirs", "")
    assert who.display_name == "slug-of-a1"
    assert found["summary"]["loss"] == 4.75


def test_a_repeated_suggestion_is_answered_from_the_record(make: Make, agent: None) -> None:
    run = make("a1", name="none")  # as it was trained
    said: list[str] = []
    asked: RunConfig = run.read_config().model_copy(update={"logger": config_for(name="wandb").logger})
    attach_to_agent(run, asked, said.append)
    found = only_wandb_piece(run)
    assert (found["run"].run_id, found["summary"]["loss"]) == ("agent42", 4.75)
    assert points_of(found["history"]) == WANDB_CURVE
    assert said == [f"{run.name} has its result; the W&B agent's run is mirrored from it"]


def test_without_an_agent_nothing_is_attached(make: Make) -> None:
    run = make("a1")
    attach_to_agent(run, run.read_config(), pytest.fail)
    assert not wandb_pieces(run)
    check_agent([run.read_config()] * 2)


def test_an_agents_run_is_one_run(make: Make, sweep: Path, agent: None) -> None:
    config = make("a1").read_config()
    check_agent([config])
    with pytest.raises(UserError, match="one run; this command has 2"):
        check_agent([config] * 2)
    with pytest.raises(UserError, match="one run; this command searches"):
        check_agent([config], is_search=True)
    check_agent([config_for(name="tensorboard")], is_search=True)
    with pytest.raises(UserError, match="WANDB_SWEEP_ID"):
        sync(sweep, {})


def test_a_state_of_a_run_is_left_as_it_was(make: Make, sweep: Path) -> None:
    run = make("a1", "diverged")
    run.update_state(reason="the training loss is nan")
    before: State = run.read_state()
    files = {file.name for file in run.path.iterdir()}
    sync(sweep, {})
    assert run.read_state() == before
    assert {file.name for file in run.path.iterdir()} - files <= {"wandb", ".lock"}
