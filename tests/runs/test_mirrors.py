"""Mirrors hold what the run directory holds, and never harm the run. Real libraries, no network."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from lmexp.config.data import ByteTokenizerConfig, StdlibData
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
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors import wandb as wandb_mirror
from lmexp.runs.mirrors.mirror import Copy, Mirror, Point, flat_config
from lmexp.runs.mirrors.open import check_logger, open_mirror

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

    found: dict[str, Any] = {"history": [], "config": {}, "summary": {}, "axes": {}, "exit_code": None}
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
                found["axes"][record.metric.name or record.metric.glob_name] = record.metric.step_metric
            case "exit":
                found["exit_code"] = record.exit.exit_code
    return found


def points_of(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in history]


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
    assert points_of(found["history"]) == CURVE
    assert found["axes"]["*"] == "tokens"
    assert {name: found["config"][name] for name in flat_config(config)} == flat_config(config)
    known = {name: value for name, value in RECORD.items() if value is not None}
    assert {name: found["summary"].get(name) for name in known} == known
    assert "mfu" not in found["summary"]
    assert found["exit_code"] == 3
    assert capfd.readouterr() == ("", "")


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
    assert points_of(read_wandb(piece)["history"]) == CURVE


def test_wandb_online_without_a_key_goes_on_offline(run: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    mirror_whole_run(config_for(name="wandb", mode="online"), run)
    assert time.monotonic() - started < 30
    [piece] = wandb_pieces(run)
    assert points_of(read_wandb(piece)["history"]) == CURVE
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
    assert points_of(read_wandb(piece)["history"]) == CURVE
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
    assert [(e.step, e.value) for e in events.Scalars("train_loss")] == [(64, 5.5), (128, 5.25)]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(128, 5.0)]
    assert [(e.step, e.value) for e in events.Scalars("record/tokens")] == [(128, 128.0)]
    first, second = (e.wall_time for e in events.Scalars("train_loss"))
    assert second - first == pytest.approx(0.5, abs=1e-3)
    [text] = events.Tensors("config/text_summary")
    assert b"| model.n_layers | 1 |" in text.tensor_proto.string_val[0]
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert not {"tokens", "seconds", "record/mfu", "record/exclusive"} & set(events.Tags()["scalars"])


def test_a_resumed_run_shows_each_point_once_in_tensorboard(run: RunDir) -> None:
    mirror_whole_run(config_for(name="tensorboard"), run)
    run.append_point(CURVE[0])
    again = open_mirror(config_for(name="tensorboard"), run)
    again.log(CURVE[1])
    again.finish(None, 0)
    assert [e.step for e in read_tensorboard(run).Scalars("train_loss")] == [64, 128]


# MLflow


def mlflow_runs(uri: str, project: str = "lmexp") -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(project)
    return client, client.search_runs([experiment.experiment_id])


def test_mlflow_keeps_curve_config_and_record_in_the_run_directory(run: RunDir) -> None:
    config = config_for(name="mlflow", project="study")
    mirror_whole_run(config, run)
    client, [found] = mlflow_runs((run.path / "mlruns").as_uri(), "study")
    assert found.info.run_name == "n_layers=1"
    assert found.info.status == "FINISHED"
    assert found.data.tags["sweep"] == "sizes"
    assert found.data.tags["model"] == "nano"
    assert found.data.params == {name: str(value) for name, value in flat_config(config).items()}
    history = client.get_metric_history(found.info.run_id, "train_loss")
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
    _, found = mlflow_runs(uri)
    assert sorted(one.info.status for one in found) == ["FAILED", "FINISHED"]


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


# None of them harms a run


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer
@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
def test_a_folder_that_vanishes_harms_nothing(name: str, run: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    mirror = open_mirror(config_for(name=name), run)
    mirror.log(CURVE[0])
    shutil.rmtree(run.path)
    for point in CURVE * 50:  # more than any of their queues holds
        mirror.log(point)
    mirror.finish(RECORD, 0)
    assert capfd.readouterr().out.count("the run goes on") == (0 if name == "wandb" else 1)


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "mlflow"])
def test_a_folder_that_cannot_be_made_is_said_once(name: str, run: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    (run.path / {"mlflow": "mlruns"}.get(name, name)).write_text("a file in the folder's place")
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


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
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
