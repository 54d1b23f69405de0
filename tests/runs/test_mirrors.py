"""Mirrors hold what the run directory holds, and never harm the run. Real libraries, no network."""

import importlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config.data import StdlibData
from lmexp.config.models.gpt import GPTConfig
from lmexp.config.optimizers import AdamConfig
from lmexp.config.schedules import ScheduleConfig
from lmexp.config.schema import (
    BatchConfig,
    BudgetConfig,
    LoggerConfig,
    PrecisionConfig,
    RunConfig,
    RunInfo,
    TrainerConfig,
)
from lmexp.config.tasks.causal_lm import CausalLMConfig
from lmexp.config.tokenizers import ByteTokenizerConfig
from lmexp.errors import UserError
from lmexp.runs.columns import QUALITIES
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import Manifest, write_manifest
from lmexp.runs.mirrors import wandb as wandb_mirror
from lmexp.runs.mirrors.mirror import AXES, Copy, Mirror, Point, describe, named
from lmexp.runs.mirrors.open import check_logger, end_lost_copies, open_mirror

KEY = "0123456789abcdef" * 3
CURVE: list[dict[str, Any]] = [
    {"step": 1, "tokens": 64, "flops": 1e6, "seconds": 0.5, "train_loss": 5.5},
    {"step": 2, "tokens": 128, "flops": 2e6, "seconds": 1.0, "train_loss": 5.25},
    {"step": 2, "tokens": 128, "flops": 2e6, "seconds": 1.0, "loss": 5.0, "perplexity": 148.4},
]
RECORD = {"run_id": "abc123", "model": "nano", "loss": 4.75, "tokens": 128, "mfu": None, "exclusive": True}


def config_for(**logger: Any) -> RunConfig:
    return RunConfig(
        model=GPTConfig(target="lmexp.models.gpt.GPT", name="nano", n_layers=1, d_model=8, n_heads=1, context=8),
        data=StdlibData(source="stdlib"),
        tokenizer=ByteTokenizerConfig(kind="byte"),
        task=CausalLMConfig(target="lmexp.tasks.causal_lm.CausalLM"),
        optim=AdamConfig(target="torch.optim.AdamW", lr=1e-3),
        schedule=ScheduleConfig(name="constant"),
        budget=BudgetConfig(tokens=128),
        batch=BatchConfig(tokens=64),
        precision=PrecisionConfig(
            name="fp32",
            weights="fp32",
            gradients="fp32",
            optimizer="fp32",
            compute="fp32",
            lightning="32-true",
        ),
        trainer=TrainerConfig(),
        logger=LoggerConfig(**logger),
        run=RunInfo(id="abc123", sweep="sizes", slug="n_layers=1"),
    )


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    folder = tmp_path / "sizes" / "n_layers-1-abc123"
    folder.mkdir(parents=True)
    return RunDir(folder)


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of the machine's own, and a server that refuses at once instead of the real one."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_SILENT", "WANDB_ERROR_REPORTING", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "true")  # as the mirrors set them, but undone after the test
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def mirror_whole_run(config: RunConfig, run: RunDir, exit_code: int = 0) -> None:
    mirror = open_mirror(config, run)
    for point in CURVE:
        mirror.log(point)
    mirror.finish(RECORD, exit_code)


# W&B


def wandb_pieces(run: RunDir) -> list[Path]:
    return sorted((run.path / "wandb").glob("*run-*/*.wandb"))


def read_wandb(file: Path) -> dict[str, Any]:
    """Read W&B's private file: a header of 7 bytes, LevelDB log blocks, protobuf records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole, records = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # too little for a header: the rest of the block is padding
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last fragment of one
            records.append(Record.FromString(whole))
            whole = b""

    def values(items: Any) -> dict[str, Any]:
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    found: dict[str, Any] = {"history": [], "config": {}, "summary": {}, "metrics": {}, "exit_code": None}
    found |= {"console": "", "system": set(), "artifacts": []}
    for record in records:
        match record.WhichOneof("record_type"):
            case "run":
                found["run"] = record.run
                found["config"] |= values(record.run.config.update)
            case "config":
                found["config"] |= values(record.config.update)
            case "history":
                found["history"].append(values(record.history.item))
            case "summary":
                found["summary"] |= values(record.summary.update)
            case "metric":
                found["metrics"][record.metric.name] = record.metric
            case "output_raw":
                found["console"] += record.output_raw.line
            case "output_logger":
                found["console"] += record.output_logger.line
            case "stats":
                found["system"] |= {item.key for item in record.stats.item}
            case "artifact":
                found["artifacts"].append(record.artifact)
            case "exit":
                found["exit_code"] = record.exit.exit_code
    return found


def points_of(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    mine = ("_runtime", "_timestamp", "_wandb")
    return [{name: value for name, value in row.items() if name not in mine} for row in history]


WANDB_CURVE: list[dict[str, Any]] = [
    {"_step": 1, "tokens": 64, "flops": 1e6, "seconds": 0.5, "train/loss": 5.5},
    {
        "_step": 2,
        "tokens": 128,
        "flops": 2e6,
        "seconds": 1.0,
        "train/loss": 5.25,
        "val/loss": 5.0,
        "val/perplexity": 148.4,
    },
]
"""CURVE as W&B has it: the optimizer step is its own step, and what an evaluation measures joins the step before it."""


def test_wandb_keeps_curve_config_and_record_offline(run: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    config = config_for(name="wandb", project="study")
    mirror_whole_run(config, run, exit_code=3)
    [piece] = wandb_pieces(run)
    found = read_wandb(piece)
    who = found["run"]
    assert (who.project, who.run_group, who.display_name, who.run_id) == (
        "study",
        "sizes",
        "n_layers=1",
        "abc123",
    )
    assert points_of(found["history"]) == WANDB_CURVE
    assert {name for name, metric in found["metrics"].items() if metric.options.hidden} == {
        "tokens",
        "flops",
        "seconds",
    }
    curves = {name: metric for name, metric in found["metrics"].items() if not metric.options.hidden}
    assert {name: metric.step_metric for name, metric in curves.items()} == dict.fromkeys(
        ["train/loss", "val/loss", "val/perplexity"], "tokens"
    )
    assert {name for name, metric in curves.items() if metric.summary.min} == {"val/loss", "val/perplexity"}
    assert (set(who.tags), who.job_type, who.notes) == ({"nano", "gpt", "causal_lm", "fp32"}, "train", "")
    assert {name: found["config"][name] for name in describe(config, run).config} == describe(config, run).config
    known = {name: value for name, value in RECORD.items() if value is not None}
    assert {name: found["summary"].get(name) for name in known} == known
    assert "mfu" not in found["summary"]
    assert found["exit_code"] == 3
    assert capfd.readouterr() == ("", "")


def test_a_mirror_names_the_question_and_the_users_tags(run: RunDir) -> None:
    write_manifest(run.path.parent, Manifest(name="sizes", question="Does size pay?"))
    about = describe(config_for(name="none", tags=["nano", "mine"]), run)
    assert (about.question, about.tags) == ("Does size pay?", ("nano", "gpt", "causal_lm", "fp32", "mine"))
    mirror_whole_run(config_for(name="wandb", tags=["mine"]), run)
    who = read_wandb(wandb_pieces(run)[0])["run"]
    assert (who.notes, "mine" in who.tags) == ("Does size pay?", True)


def test_a_manifest_that_cannot_be_read_costs_the_question_only(run: RunDir) -> None:
    (run.path.parent / "sweep.json").write_text("{")
    assert describe(config_for(name="none"), run).question is None


@given(st.dictionaries(st.sampled_from([*AXES, *QUALITIES, "train_loss", "grad_norm", "lr", "mine"]), st.floats(0, 9)))
def test_no_two_measurements_of_a_point_get_one_name(point: dict[str, float]) -> None:
    there = named(point)
    assert sorted(there.values()) == sorted(point.values())
    assert all(name in AXES or name.startswith(("train/", "val/")) for name in there)


def test_the_best_value_is_the_highest_accuracy_and_the_lowest_loss(run: RunDir) -> None:
    mirror = open_mirror(config_for(name="wandb"), run)
    for step, loss, accuracy in ((1, 3.0, 0.1), (2, 1.0, 0.9), (3, 2.0, 0.5)):
        axes = {"step": step, "tokens": 64 * step, "flops": 1e6 * step, "seconds": float(step)}
        mirror.log(axes | {"loss": loss, "accuracy": accuracy})
    mirror.finish(None, 0)
    summary = read_wandb(wandb_pieces(run)[0])["summary"]
    assert summary["val/loss"] == {"min": 1.0, "last": 2.0}
    assert summary["val/accuracy"] == {"max": 0.9, "last": 0.5}


@pytest.mark.parametrize("is_live", [True, False])
def test_wandb_has_the_earlier_log_and_samples_the_machine_only_while_it_trains(run: RunDir, is_live: bool) -> None:
    run.log.write_text("what an earlier attempt printed\n")
    for seconds in (0.5, 2.0, 8.0):  # on a loaded machine, the first sample may take a while
        mirror = open_mirror(config_for(name="wandb"), run, is_live=is_live)
        print("what is printed now")
        time.sleep(seconds)
        mirror.finish(None, 0)
        found = read_wandb(wandb_pieces(run)[0])
        if found["system"] or not is_live:
            break
    assert ("memory_percent" in found["system"]) == is_live
    assert found["console"].count("what an earlier attempt printed\n") == 1
    if not is_live:  # pytest exchanges standard output; tests/e2e/test_wandb.py looks at a run's own
        assert "what is printed now" not in found["console"]


def test_wandb_leaves_out_console_and_system_metrics_if_asked(run: RunDir) -> None:
    run.log.write_text("an earlier line\n")
    mirror = open_mirror(config_for(name="wandb", console=False, system_metrics=False), run)
    print("a line")
    mirror.finish(None, 0)
    found = read_wandb(wandb_pieces(run)[0])
    assert (found["system"], found["console"]) == (set(), "")


def test_wandb_has_the_final_weights_only_if_asked_and_only_of_a_finished_run(run: RunDir) -> None:
    run.final.mkdir(parents=True)
    (run.final / "model.safetensors").write_bytes(b"weights")
    for asked, exit_code, names in ((["model"], 0, ["n_layers-1-abc123"]), (["model"], 1, []), ([], 0, [])):
        mirror_whole_run(config_for(name="wandb", artifacts=asked), run, exit_code)
        artifacts = read_wandb(wandb_pieces(run)[0])["artifacts"]
        assert [artifact.name for artifact in artifacts] == names
        for artifact in artifacts:
            [entry] = artifact.manifest.contents
            assert (artifact.type, entry.path, entry.size) == ("model", "model.safetensors", 7)
            assert Path(entry.local_path).read_bytes() == b"weights"  # where `wandb sync` takes it from
            assert json.loads(artifact.metadata)["loss"] == 4.75


def test_a_resumed_run_has_one_wandb_piece_with_the_whole_curve(run: RunDir) -> None:
    first = open_mirror(config_for(name="wandb"), run)
    for point in CURVE:
        first.log(point)
    first.finish(None, 1)
    run.append_point(CURVE[0])  # what was kept up to the checkpoint
    again = open_mirror(config_for(name="wandb"), run)
    for point in CURVE[1:]:
        again.log(point)
    again.finish(RECORD, 0)
    [piece] = wandb_pieces(run)
    assert points_of(read_wandb(piece)["history"]) == WANDB_CURVE


def test_wandb_online_without_a_key_goes_on_offline(run: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    mirror_whole_run(config_for(name="wandb", mode="online"), run)
    assert time.monotonic() - started < 30
    [piece] = wandb_pieces(run)
    assert points_of(read_wandb(piece)["history"]) == WANDB_CURVE
    out, err = capfd.readouterr()
    assert out.count("\n") == 1
    assert f"wandb sync {piece.parent}" in out
    assert err == ""


def test_wandb_online_without_a_network_goes_on_offline_and_keeps_the_key_secret(
    run: RunDir, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_mirror, "CONNECT_SECONDS", 2.0)
    started = time.monotonic()
    mirror_whole_run(config_for(name="wandb", mode="online"), run)
    assert time.monotonic() - started < 20
    [piece] = wandb_pieces(run)
    assert points_of(read_wandb(piece)["history"]) == WANDB_CURVE
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert "wandb sync" in out
    written = [file.read_bytes() for file in run.path.rglob("*") if file.is_file()]
    assert written
    assert not any(KEY.encode() in content for content in [*written, out.encode()])


def test_wandb_disabled_writes_nothing(run: RunDir) -> None:
    mirror_whole_run(config_for(name="wandb", mode="disabled"), run)
    assert list(run.path.iterdir()) == []


# TensorBoard


def read_tensorboard(run: RunDir) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run.path / "tensorboard")).Reload()


def test_tensorboard_shows_the_curve_against_tokens(run: RunDir) -> None:
    mirror_whole_run(config_for(name="tensorboard"), run)
    events = read_tensorboard(run)
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(64, 5.5), (128, 5.25)]
    assert [(e.step, e.value) for e in events.Scalars("val/loss")] == [(128, 5.0)]
    assert set(events.Tags()["scalars"]) == {"train/loss", "val/loss", "val/perplexity"}  # none of the record
    first, second = (e.wall_time for e in events.Scalars("train/loss"))
    assert second - first == pytest.approx(0.5, abs=1e-3)
    [text] = events.Tensors("config/text_summary")
    assert b"| model.n_layers | 1 |" in text.tensor_proto.string_val[0]


def test_tensorboards_own_hparams_tab_compares_the_runs_by_config_record_and_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    for name, code in (("one", 0), ("two", 1)):
        run = RunDir(tmp_path / "sizes" / name)
        run.path.mkdir(parents=True)
        mirror_whole_run(config_for(name="tensorboard"), run, exit_code=code)
    logdir = str(tmp_path / "sizes")
    reader = EventMultiplexer()
    reader.AddRunsFromDirectory(logdir)
    reader.Reload()
    context = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(reader, logdir), logdir=logdir))
    request = RequestContext()
    columns = context.experiment_from_metadata(
        request,
        "",
        True,
        context.hparams_metadata(request, ""),
        context.hparams_from_data_provider(request, "", 1000),
        1000,
    )
    assert {"model.n_layers", "record/loss", "record/tokens"} <= {info.name for info in columns.hparam_infos}
    assert {info.name.tag for info in columns.metric_infos} == {"train/loss", "val/loss", "val/perplexity"}
    wanted = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE],
        col_params=[
            api_pb2.ColParams(hparam="record/loss"),
            api_pb2.ColParams(metric=api_pb2.MetricName(tag="val/loss", group="tensorboard")),
        ],
    )
    listed = list_session_groups.Handler(request, context, "", wanted).run()
    groups = {group.sessions[0].name.split("/")[0]: group for group in listed.session_groups}
    assert set(groups) == {"one", "two"}
    assert groups["one"].hparams["record/loss"].number_value == 4.75
    statuses = {name: group.sessions[0].status for name, group in groups.items()}
    assert statuses == {"one": api_pb2.STATUS_SUCCESS, "two": api_pb2.STATUS_FAILURE}


def test_a_resumed_run_shows_each_point_once_in_tensorboard(run: RunDir) -> None:
    mirror_whole_run(config_for(name="tensorboard"), run)
    run.append_point(CURVE[0])
    again = open_mirror(config_for(name="tensorboard"), run)
    again.log(CURVE[1])
    again.finish(None, 0)
    assert [e.step for e in read_tensorboard(run).Scalars("train/loss")] == [64, 128]


# MLflow


def mlflow_runs(uri: str, project: str = "lmexp") -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(project)
    runs = client.search_runs([experiment.experiment_id])
    return client, [run for run in runs if run.data.tags["job_type"] != "sweep"]


def mlflow_parents(client: Any) -> list[Any]:
    every = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(every, "tags.job_type = 'sweep'"))


def test_mlflow_keeps_curve_config_and_record_in_the_sweeps_folder(run: RunDir) -> None:
    config = config_for(name="mlflow", project="study")
    mirror_whole_run(config, run)
    client, [found] = mlflow_runs((run.path.parent / "mlruns").as_uri(), "study")
    [parent] = mlflow_parents(client)
    assert found.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.run_name, parent.info.status) == ("sizes", "FINISHED")
    assert found.data.tags["tags"] == "nano, gpt, causal_lm, fp32"
    assert found.info.run_name == "n_layers=1"
    assert found.info.status == "FINISHED"
    assert found.data.tags["sweep"] == "sizes"
    assert found.data.tags["model"] == "nano"
    assert found.data.params == {name: str(value) for name, value in describe(config, run).config.items()}
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(64, 5.5), (128, 5.25)]
    assert history[1].timestamp - history[0].timestamp == pytest.approx(500, abs=1)
    assert found.data.metrics["record/loss"] == 4.75
    assert found.data.metrics["record/tokens"] == 128


def test_mlflow_runs_of_one_project_share_an_experiment_on_a_server(run: RunDir, tmp_path: Path) -> None:
    uri = (tmp_path / "server").as_uri()
    somebody_elses = RunDir(tmp_path / "elsewhere")  # of the same config
    somebody_elses.path.mkdir()
    mirror_whole_run(config_for(name="mlflow", uri=uri), somebody_elses)
    mirror_whole_run(config_for(name="mlflow", uri=uri), run)
    mirror_whole_run(config_for(name="mlflow", uri=uri), run, exit_code=1)  # takes the place of the one before
    client, found = mlflow_runs(uri)
    assert sorted(one.info.status for one in found) == ["FAILED", "FINISHED"]
    # The run in `elsewhere` belongs to somebody's sweep of the same name; the two sweeps are not joined.
    assert len({one.data.tags["mlflow.parentRunId"] for one in found}) == len(mlflow_parents(client)) == 2


def test_runs_that_start_together_have_one_parent_in_mlflow_that_runs_as_long_as_one_of_them(tmp_path: Path) -> None:
    runs = [RunDir(tmp_path / "sizes" / f"run-{number}") for number in range(4)]
    for run in runs:
        run.path.mkdir(parents=True)
    write_manifest(tmp_path / "sizes", Manifest(name="sizes", question="Does size pay?"))
    locks = [run.lock() for run in runs]  # as a process that trains a run has it
    assert all(locks)
    with ThreadPoolExecutor(4) as pool:
        mirrors = list(pool.map(lambda run: open_mirror(config_for(name="mlflow"), run), runs))
    client, found = mlflow_runs((tmp_path / "sizes" / "mlruns").as_uri())
    [parent] = mlflow_parents(client)
    assert [one.data.tags["mlflow.parentRunId"] for one in found] == [parent.info.run_id] * 4
    assert parent.data.tags["mlflow.note.content"] == found[0].data.tags["mlflow.note.content"] == "Does size pay?"
    for mirror in mirrors:
        assert client.get_run(parent.info.run_id).info.status == "RUNNING"
        mirror.finish(RECORD, 0)
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"


def test_a_run_that_was_killed_does_not_keep_its_sweep_running_in_mlflow(tmp_path: Path) -> None:
    config, runs = config_for(name="mlflow"), [RunDir(tmp_path / "sizes" / f"run-{number}") for number in range(3)]
    for run in runs:
        run.path.mkdir(parents=True)
    locks = [run.lock() for run in runs]
    mirrors = [open_mirror(config, run) for run in runs]
    client, found = mlflow_runs((tmp_path / "sizes" / "mlruns").as_uri())
    [parent] = mlflow_parents(client)

    def statuses() -> list[str]:
        ids = [(run.path / ".mlflow").read_text().strip() for run in runs]
        return [client.get_run(one).info.status for one in [*ids, parent.info.run_id]]

    def kill(number: int) -> None:
        lock = locks[number]
        assert lock is not None
        lock.close()

    kill(0)
    mirrors[1].finish(RECORD, 0)
    assert len(found) == 3 and statuses() == ["KILLED", "FINISHED", "RUNNING", "RUNNING"]
    kill(2)  # nobody is left to say it but the command
    end_lost_copies([(config, run) for run in runs], pytest.fail)
    assert statuses() == ["KILLED", "FINISHED", "KILLED", "FINISHED"]


def test_mlflow_keeps_the_final_weights_if_asked(run: RunDir) -> None:
    run.final.mkdir(parents=True)
    (run.final / "model.safetensors").write_bytes(b"weights")
    mirror_whole_run(config_for(name="mlflow", artifacts=["model"]), run)
    client, [found] = mlflow_runs((run.path.parent / "mlruns").as_uri())
    assert [file.path for file in client.list_artifacts(found.info.run_id, "model")] == ["model/model.safetensors"]


def test_a_note_from_elsewhere_deletes_nothing_in_mlflow(run: RunDir) -> None:
    mirror_whole_run(config_for(name="mlflow"), run)
    [parent] = mlflow_parents(mlflow_runs((run.path.parent / "mlruns").as_uri())[0])
    (run.path / ".mlflow").write_text(f"{parent.info.run_id}\n../../..\n")
    mirror_whole_run(config_for(name="mlflow"), run)
    client, found = mlflow_runs((run.path.parent / "mlruns").as_uri())
    assert len(found) == 2
    assert [one.info.run_id for one in mlflow_parents(client)] == [parent.info.run_id]


def test_a_dead_mlflow_server_is_said_in_one_line_without_the_password(
    run: RunDir, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    mirror_whole_run(config_for(name="mlflow", uri="http://127.0.0.1:9"), run)
    out, err = capfd.readouterr()
    assert out.startswith("the MLflow mirror stopped: ")
    assert out.endswith("; the run goes on\n")
    assert out.count("\n") == 1
    assert "secret" not in out + err


@pytest.mark.parametrize("uri", ["http://me:secret@host:5000", "https://me:@host", "postgresql://me:se:cr@et/@host/db"])
@pytest.mark.parametrize("name", ["mlflow", "none"])  # a config.yaml has it either way
def test_an_address_with_a_password_is_refused_and_not_repeated(name: str, uri: str) -> None:
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as refused:
        check_logger(LoggerConfig(name=name, uri=uri))
    assert "me:" not in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["http://host:5000/a@b", "http://me@host", "file:///home/a:b/c@d", "sqlite:///a.db", "databricks://a:b"]
)
def test_an_address_without_a_password_is_not_refused(uri: str) -> None:
    check_logger(LoggerConfig(name="mlflow", uri=uri))


# trackio


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Trackio as a new process has it: where its files are is fixed at its import."""
    for name in ("TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)

    class Later:
        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module("trackio"), name)

    def forget() -> None:
        for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
            del sys.modules[name]

    forget()
    yield Later()
    forget()


def read_trackio(project: str, run: RunDir) -> list[dict[str, Any]]:
    """Return the points of a run; what trackio adds by itself is left out."""
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs(project, run.name)
    return [{name: value for name, value in row.items() if name != "timestamp"} for row in rows]


def test_trackio_keeps_curve_config_and_record_beside_the_sweeps(
    run: RunDir, trackio: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    write_manifest(run.path.parent, Manifest(name="sizes", question="Does size pay?"))
    config = config_for(name="trackio", project="study")
    mirror_whole_run(config, run)
    assert capfd.readouterr().out == ""
    assert (run.path.parent.parent / ".trackio" / "study.db").is_file()
    *curve, record = read_trackio("study", run)
    assert curve == [{"step": point["step"], **named(point)} for point in CURVE]
    rows = {row["column"]: row["value"] for row in record["record"]["_value"]}
    assert (rows["loss"], rows["model"], "mfu" in rows) == ("4.75", "nano", False)
    [there] = trackio.Api().runs("study")
    flat = {name: json.loads(json.dumps(value)) for name, value in describe(config, run).config.items()}
    assert {name: there.config[name] for name in flat} == flat
    assert (there.config["_Group"], there.config["about.question"]) == ("sizes", "Does size pay?")


def test_trackio_stops_where_it_would_send_data_away(
    run: RunDir, trackio: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/space")
    mirror_whole_run(config_for(name="trackio"), run)
    assert "TRACKIO_SPACE_ID is set" in capfd.readouterr().out


def test_trackio_in_one_process_has_one_folder(
    run: RunDir, trackio: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mirror_whole_run(config_for(name="trackio"), run)
    other = RunDir(tmp_path / "elsewhere" / "sizes" / "run")
    other.path.mkdir(parents=True)
    mirror_whole_run(config_for(name="trackio"), other)
    assert "use another process" in capfd.readouterr().out


# None of them harms a run


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer
@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
def test_a_folder_that_vanishes_harms_nothing(name: str, run: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    mirror = open_mirror(config_for(name=name), run)
    mirror.log(CURVE[0])
    while run.path.parent.exists():  # W&B may be writing a file while it is deleted
        shutil.rmtree(run.path.parent, ignore_errors=True)
    for point in CURVE * 50:  # more than any of their queues holds
        mirror.log(point)
    mirror.finish(RECORD, 0)
    assert capfd.readouterr().out.count("the run goes on") == (0 if name == "wandb" else 1)


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow", "trackio"])
def test_a_folder_that_cannot_be_made_is_said_once(
    name: str, run: RunDir, trackio: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = run.path.parent
    place = {"mlflow": sweep / "mlruns", "trackio": sweep.parent / ".trackio"}.get(name, run.path / name)
    place.write_text("a file in the folder's place")
    mirror_whole_run(config_for(name=name), run)
    assert capfd.readouterr().out.count("the run goes on") == 1


def test_a_mirror_that_stopped_says_so_once_and_is_still_closed(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken:
        finished = False

        def log(self, point: Point) -> None:
            raise RuntimeError("disk full\nand more")

        def finish(self, record: dict[str, Any] | None, exit_code: int) -> None:
            self.finished = True
            raise RuntimeError("disk still full")

    copy = Broken()
    mirror = Mirror("W&B", lambda: copy)
    mirror.log(CURVE[0])
    mirror.log(CURVE[1])
    mirror.finish(RECORD, 0)
    assert copy.finished
    assert capfd.readouterr().out == "the W&B mirror stopped: RuntimeError: disk full; the run goes on\n"


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupted() -> Copy:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Mirror("W&B", interrupted)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "trackio"])
def test_a_missing_package_is_said_before_anything_starts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_logger(LoggerConfig(name=name))
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"pip install 'lmexp\[{name}\]'"):
        check_logger(LoggerConfig(name=name))


@pytest.mark.parametrize("name", ["none", "wandb"])
def test_what_comes_with_lmexp_is_not_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    check_logger(LoggerConfig(name=name))


def test_no_mirror_leaves_nothing(run: RunDir) -> None:
    mirror_whole_run(config_for(name="none"), run)
    assert list(run.path.iterdir()) == []
