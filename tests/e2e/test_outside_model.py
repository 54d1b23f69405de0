"""A model family, a task and metrics from a user's own folder: everything works with them that works with lmexp's."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lmexp.runs.directory import RunDir
from tests.conftest import Lmexp

if TYPE_CHECKING:
    from tests.launch.ray import RayCluster

MODEL = '''
"""A causal convolution over the embeddings: no attention, and no formula for its FLOPs."""

from torch import nn
from torch.nn import functional as F

from lmexp.config.base import Count
from lmexp.config.models.base import CountedSection
from lmexp.models.base import LanguageModel


class ConvConfig(CountedSection):
    family: str = "conv"
    n_layers: Count = 2
    d_model: Count
    kernel: Count = 3


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.before = config.kernel - 1
        self.conv = nn.Conv1d(config.d_model, config.d_model, config.kernel)

    def forward(self, x):
        return x + self.conv(F.pad(x.transpose(1, 2), (self.before, 0))).transpose(1, 2).relu()


class Conv(LanguageModel):
    Config = ConvConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(self.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.head = nn.Linear(config.d_model, self.vocab_size, bias=False)

    def hidden(self, tokens, cache=None, valid=None):
        self.first_position(tokens, cache)
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return x
'''
TASK = '''
"""Predict each token, with a loss in which targets far behind count for less."""

from lmexp.config.tasks.base import TaskSection
from lmexp.tasks.base import Task


class FadingConfig(TaskSection):
    name: str = "fading"
    fade: float = 0.5


class Fading(Task):
    Config = FadingConfig

    def predict(self, batch):
        return self.model(batch["inputs"]).flatten(0, 1), batch["targets"].flatten()

    def step_nll(self, logits, targets):
        return self.config.task.fade * super().step_nll(logits, targets)


def share_right(predicted, targets, scale=1.0):
    return scale * (predicted == targets).double().mean()


def broken(predicted, targets):
    raise ValueError("this metric is broken")


def not_a_number(predicted, targets):
    return float("nan")


def text(predicted, targets):
    return "good"


class Count:
    def __init__(self):
        self.total = 0

    def update(self, predicted, targets):
        self.total += len(targets)

    def compute(self):
        return self.total
'''
BROKEN = """import pytorch_lightning as pl


def verses():
    yield "a text"
    raise KeyError("column")


class Loud(pl.Callback):
    def on_train_batch_end(self, *args):
        raise RuntimeError("too loud")
"""
METRICS = "task.metrics=[{_target_: mine.tasks.share_right, name: right, scale: 100}, {_target_: mine.tasks.Count}]"
VOCAB, WIDTH, LAYERS, KERNEL = 257, 16, 2, 3


@pytest.fixture
def words(tmp_path: Path, text: Path) -> list[str]:
    """A run of a second on a model and a task of the folder's own."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "models.py").write_text(MODEL)
    (tmp_path / "mine" / "tasks.py").write_text(TASK)
    for group, name, content in (
        (
            "model",
            "conv",
            f"# Causal convolutions\n_target_: mine.models.Conv\nname: conv\ncontext: 32\nd_model: {WIDTH}\nkernel: 3",
        ),
        ("task", "fading", "# A task of mine\n_target_: mine.tasks.Fading\nmetrics: []\n"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(content)
    small = ["tokenizer=byte", "batch.tokens=256", "budget.tokens=5120", "launcher.threads=1", "trainer.log_every=5"]
    return ["model=conv", "task=fading", *small, "data=text", f"data.path={text}", "data.document=paragraph"]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text())["rows"][0] for file in sorted(folder.glob("*/record.json"))]


@pytest.mark.slow
def test_a_model_and_a_task_of_ones_own_are_swept_used_and_scored(lmexp: Lmexp, tmp_path: Path, words: list[str]):
    environment = {"LMEXP_TRUST": "mine"}  # the metrics are named by no config file
    ended = lmexp("train", "-m", *words, "model.kernel=2,3", METRICS, "--name", "own", **environment)
    assert ended.returncode == 0, ended.stderr
    found = {row["slug"]: row for row in rows(tmp_path / "outputs" / "own")}
    row = found["kernel3"]
    assert row["family"] == "conv" and row["task"] == "fading" and row["flops_source"] == "counted"
    matmul = LAYERS * KERNEL * WIDTH * WIDTH + WIDTH * VOCAB
    assert row["flops_per_token"] == 6 * matmul and row["n_params_matmul"] == matmul
    assert row["n_params"] == matmul + LAYERS * WIDTH + VOCAB * WIDTH
    assert row["score/fading/right"] == pytest.approx(100 * row["accuracy"]) and row["score/fading/count"] > 0
    assert found["kernel2"]["flops_per_token"] < row["flops_per_token"]

    run = next((tmp_path / "outputs" / "own").glob("kernel3-*"))
    written = lmexp("generate", str(run), "the cat", "--tokens", "4")
    scored = lmexp("score", str(run), "the cat sat")
    again = lmexp("eval", str(run), METRICS, "--as", "again", **environment)
    for used in (written, scored, again):
        assert used.returncode == 0, used.stderr
    kept = json.loads((run / "scores.json").read_text())["again"]["scores"]
    assert kept["right"] == pytest.approx(row["score/fading/right"])
    refused = lmexp("export", str(run), "exported")
    assert refused.returncode == 2 and "has no model like family conv of mine.models.Conv" in refused.stderr
    assert "checkpoints/final/model.safetensors" in refused.stderr and not (tmp_path / "exported").exists()


@pytest.mark.slow
def test_a_metric_that_fails_costs_no_result_and_is_named(lmexp: Lmexp, tmp_path: Path, words: list[str]):
    metrics = ", ".join(f"{{_target_: mine.tasks.{name}}}" for name in ("broken", "not_a_number", "text"))
    ended = lmexp("train", *words, f"task.metrics=[{metrics}]", "--name", "own", LMEXP_TRUST="mine")
    assert ended.returncode == 0, ended.stderr
    (row,) = rows(tmp_path / "outputs" / "own")
    assert row["loss"] > 0 and not [column for column in row if column.startswith("score/")]
    (log,) = (tmp_path / "outputs" / "own").glob("*/log.txt")
    for name, reason in (
        ("broken", "ValueError: this metric is broken (in mine.tasks.broken, mine/tasks.py:"),
        ("not_a_number", "it returned nan, and a score is one finite number"),
        ("text", "it returned 'good', and a score is one finite number"),
    ):
        assert f"the metric mine.tasks.{name} failed and has no score: {reason}" in log.read_text()
        assert f"score/fading/{name} is missing, because its metric failed: {reason}" in ended.stderr


@pytest.mark.slow
def test_an_error_in_code_of_ones_own_is_one_line_that_names_it(lmexp: Lmexp, tmp_path: Path, words: list[str]):
    (tmp_path / "mine" / "broken.py").write_text(BROKEN)
    (tmp_path / "conf" / "data").mkdir()
    (tmp_path / "conf" / "data" / "broken.yaml").write_text("_target_: mine.broken.verses\n")
    ended = lmexp("train", *(word for word in words if not word.startswith("data")), "data=broken")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "error: KeyError: 'column' (in mine.broken.verses, mine/broken.py:6)" in ended.stderr
    ended = lmexp("train", *words, "callbacks=[{_target_: mine.broken.Loud}]", "--name", "own")
    (state,) = (json.loads(file.read_text()) for file in (tmp_path / "outputs" / "own").glob("*/state.json"))
    reason = "RuntimeError: too loud (in mine.broken.Loud.on_train_batch_end, mine/broken.py:11)"
    assert ended.returncode == 1 and state["state"] == "failed" and state["reason"] == reason
    assert reason in ended.stderr and "Traceback" not in ended.stderr


def test_a_section_of_ones_own_refuses_a_mistyped_key_and_a_class_without_section(
    lmexp: Lmexp, tmp_path: Path, words: list[str]
):
    ended = lmexp("train", *words, "+model.kernle=3")
    assert ended.returncode == 2 and "model.kernle is not a key of the config. Did you mean 'kernel'?" in ended.stderr
    file = tmp_path / "mine" / "models.py"
    file.write_text(MODEL.replace("    Config = ConvConfig\n", ""))
    ended = lmexp("train", *words)
    assert ended.returncode == 2 and "mine.models.Conv needs a class attribute Config" in ended.stderr


@pytest.mark.slow
def test_a_model_of_ones_own_trains_on_two_processes_and_resumes(lmexp: Lmexp, tmp_path: Path, words: list[str]):
    two = [*words, "trainer.devices=2", "trainer.accelerator=cpu"]
    ended = lmexp("train", *two, "--name", "two")
    assert ended.returncode == 0, ended.stderr
    alone = lmexp("train", *words, "--name", "one")
    assert alone.returncode == 0, alone.stderr
    (pair,), (single,) = (rows(tmp_path / "outputs" / name) for name in ("two", "one"))
    assert pair["world_size"] == 2 and pair["loss"] == pytest.approx(single["loss"], rel=1e-4)
    (path,) = (path.parent for path in (tmp_path / "outputs" / "one").glob("*/record.json"))
    run = RunDir(path)
    assert run.read_state().state == "done"
    ended = lmexp("train", *words, "--name", "one")  # a finished run is not trained again
    assert ended.returncode == 0 and run.read_state().attempts == 1


@pytest.mark.slow(70)
def test_a_sharded_model_of_ones_own_is_killed_goes_on_and_ends_as_on_one_process(
    lmexp: Lmexp, tmp_path: Path, words: list[str]
):
    words = [*words, "budget.tokens=102400", "checkpoint.every=0.05", "trainer.accelerator=cpu"]
    command = [sys.executable, "-m", "lmexp.cli", "train", *words, "trainer.devices=2", "trainer.strategy=fsdp"]
    environment = os.environ | {"LMEXP_OUTPUTS": "outputs"}
    started = subprocess.Popen(
        [*command, "--name", "sharded"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (kept := list((tmp_path / "outputs" / "sharded").glob("*/checkpoints/last.ckpt"))):
        assert started.poll() is None and time.monotonic() < deadline, started.communicate()[1]
        time.sleep(0.02)
    run = RunDir(kept[0].parents[1])
    os.kill(run.read_state().pid or 0, signal.SIGKILL)
    assert started.wait(120) == 0, started.communicate()[1]
    assert run.read_state().attempts == 2 and "resuming after step" in run.log.read_text()
    alone = lmexp("train", *words, "--name", "one")
    assert alone.returncode == 0, alone.stderr
    (sharded,), (single,) = (rows(tmp_path / "outputs" / name) for name in ("sharded", "one"))
    assert sharded["family"] == "conv" and sharded["loss"] == pytest.approx(single["loss"], rel=1e-4)


def trains_on(cluster: list[str], lmexp: Lmexp, folder: Path, words: list[str]) -> None:
    """Train on a cluster, and check that its nodes took the user's code from the user's folder."""
    here = [word for word in words if not word.startswith("launcher.")]
    ended = lmexp("train", *here, *cluster, "trainer.accelerator=cpu", "--name", "far", timeout=300)
    assert ended.returncode == 0, ended.stderr
    (row,) = rows(folder / "outputs" / "far")
    assert row["family"] == "conv" and row["task"] == "fading" and row["flops_source"] == "counted"
    assert "mine.models.Conv" in row["code_versions"]


@pytest.mark.slow
@pytest.mark.usefixtures("slurm_cluster")
def test_a_model_of_ones_own_trains_in_slurm(lmexp: Lmexp, tmp_path: Path, words: list[str]):
    trains_on(["launcher=slurm", "launcher.partition=main", "launcher.memory_gb=1"], lmexp, tmp_path, words)


@pytest.mark.slow
def test_a_model_of_ones_own_trains_in_ray(ray_cluster: "RayCluster", lmexp: Lmexp, tmp_path: Path, words: list[str]):
    ray_cluster.complete()
    trains_on(["launcher=ray", f"launcher.address={ray_cluster.address}"], lmexp, tmp_path, words)
