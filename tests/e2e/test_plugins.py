"""What users bring: code of their own folder, or of an installed package, works as lmexp's own does. Real commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lmexp.runs.directory import RunDir
from tests.conftest import Lmexp

pytestmark = [pytest.mark.slow(70), pytest.mark.timeout(600)]

CODE = '''
import json
from pathlib import Path

import pytorch_lightning as pl
import torch

from lmexp.config.base import Section
from lmexp.runs.mirrors.mirror import Copy

with Path(__file__).with_name("imports.txt").open("a") as file:
    file.write("imported\\n")


class SignSGD(torch.optim.Optimizer):
    """Steps of one length, in the direction of a gradient that is averaged over steps."""

    def __init__(self, params, lr, decay=0.9):
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["decay"])
                weight.sub_(mean.sign(), alpha=group["lr"])
        return loss


def halved(share, steps=4):
    return 0.5 ** int(share * steps)


class Slope:
    class Config(Section):
        low: float = 0.5

    def __init__(self, low):
        self.low = low

    def __call__(self, share):
        return 1 - share * (1 - self.low)


class Counter(pl.Callback):
    def __init__(self, file):
        self.file, self.steps = Path(file), 0

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.steps += 1
        self.file.write_text(str(self.steps))

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def verses(count=300):
    for number in range(count):
        yield " ".join(f"{number} {word}" for word in "roses are red and violets are blue in spring".split())


class Words:
    """One id a word; 0 is every word that training lacks."""

    def __init__(self, words):
        self.words, self.vocab_size = words, len(words) + 1
        self.ids = {word: number for number, word in enumerate(words, 1)}

    @classmethod
    def train(cls, texts, most=50):
        return cls(sorted({word for text in texts for word in text.split()})[:most])

    def encode(self, text):
        return [self.ids.get(word, 0) for word in text.split()]

    def decode(self, ids):
        return " ".join(["?", *self.words][token] for token in ids)

    def state(self):
        return {"words": self.words}


class Notebook(Copy):
    def __init__(self, config, run, title):
        self.file = run.path / f"{title}.jsonl"
        self.place = str(self.file)
        self.file.write_text("")

    def log(self, point):
        with self.file.open("a") as file:
            file.write(json.dumps(dict(point)) + "\\n")

    def finish(self, record, exit_code):
        self.log({"loss": (record or {}).get("loss"), "exit_code": exit_code})
'''
CONFIGS = {
    "optim/signs": "# Sign descent\n_target_: my_study.parts.SignSGD\nlr: 1e-3\ndecay: 0.8\n",
    "schedule/halved": "# Halved four times\n_target_: my_study.parts.halved\nsteps: 3\n",
    "schedule/slope": "# A straight line\n_target_: my_study.parts.Slope\n",
    "data/verses": "# Verses\n_target_: my_study.parts.verses\ncount: 400\n",
    "tokenizer/words": "# Words\n_target_: my_study.parts.Words\nmost: 40\n",
    "logger/notebook": "# A file of lines\n_target_: my_study.parts.Notebook\ntitle: notes\n",
}
SMALL = [
    "model=gpt_nano", "model.context=32", "model.d_model=32", "batch.tokens=256", "trainer.log_every=5",
    "launcher.threads=1", "budget.tokens=5120",
]  # fmt: skip
OWN = ["optim=signs", "schedule=halved", "data=verses", "tokenizer=words", "logger=notebook"]


def write_study(folder: Path) -> None:
    (folder / "my_study").mkdir(parents=True)
    (folder / "my_study" / "__init__.py").write_text("")
    (folder / "my_study" / "parts.py").write_text(CODE)
    for name, content in CONFIGS.items():
        file = folder / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


def imports(folder: Path) -> int:
    file = folder / "my_study" / "imports.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def runs(folder: Path, sweep: str) -> list[RunDir]:
    return [RunDir(file.parent) for file in sorted((folder / "outputs" / sweep).glob("*/config.yaml"))]


def test_everything_from_a_users_folder_trains_resumes_and_is_reported(tmp_path: Path, lmexp: Lmexp):
    write_study(tmp_path)
    counted = tmp_path / "steps.txt"
    words = [
        *SMALL,
        *OWN,
        f"callbacks=[{{_target_: my_study.parts.Counter, file: '{counted}'}}]",
        "checkpoint.every=0.1",
    ]
    words += ["budget.tokens=102400", "trainer.log_every=50"]  # 400 steps: time to be stopped in
    started = subprocess.Popen([sys.executable, "-m", "lmexp.cli", "train", *words], cwd=tmp_path, text=True,
                               stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 300
    while not list((tmp_path / "outputs").glob("train/*/checkpoints/last.ckpt")):
        assert started.poll() is None and time.monotonic() < deadline, started.communicate()[1]
        time.sleep(0.02)
    os.kill(started.pid, signal.SIGINT)
    started.communicate(timeout=120)

    (run,) = runs(tmp_path, "train")
    was_stopped = run.read_state().state != "done"
    ended = lmexp("train", *words)
    assert ended.returncode == 0, ended.stderr
    assert not was_stopped or "resuming after step" in run.log.read_text()
    assert counted.read_text() == "400"  # the callback's own count went on from the checkpoint

    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert set(config["code"]) == {f"my_study.parts.{n}" for n in ("SignSGD", "halved", "verses", "Words", "Counter")}
    notes = [json.loads(line) for line in (run.path / "notes.jsonl").read_text().splitlines()]
    record = run.read_record()
    assert record and notes[-1] == {"loss": record[0]["loss"], "exit_code": 0} and len(notes) > 5
    assert record[0]["vocab_size"] == 40 + 1 + 1  # of the words, one for unknown ones, and lmexp's own
    assert record[0]["code_versions"].count("my_study.parts.") == 5
    lrs = {round(point["lr"], 9) for point in run.read_curve() if "lr" in point}
    assert lrs == {1e-3, 5e-4, 2.5e-4, 1.25e-4}
    report = lmexp("report", "train", "--json")
    assert report.returncode == 0 and "my_study.parts" not in report.stderr
    assert lmexp("generate", "train", "0 roses 0", "--tokens", "5").returncode == 0

    # Code that has changed makes another run, and what is left of the old one is not trained on.
    file = tmp_path / "my_study" / "parts.py"
    file.write_text(file.read_text().replace("0.5 **", "0.25 **"))
    for verb in (
        ["generate", "train", "0 roses 0", "--tokens", "5"],
        ["bench", "train", "--batch", "1", "--prompt", "4", "--new", "4", "--precision", "fp32"],
        ["export", "train", "exported"],
    ):
        assert "has changed since" in lmexp(*verb).stderr, verb
    run.update_state(state="failed")
    (run.path / "record.json").unlink()
    refused = lmexp("retry", "train")
    assert "has changed since this run was named" in refused.stdout + refused.stderr + run.log.read_text()
    plan = lmexp("train", *words, "budget.tokens=5120")
    assert plan.returncode == 0 and len(runs(tmp_path, "train")) == 2


def test_a_sweep_over_a_users_own_parts_beside_lmexps(tmp_path: Path, lmexp: Lmexp):
    write_study(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "sweep:\n  grid:\n    optim: [adamw, signs]\n    schedule: [cosine, slope]\n"
    )
    ended = lmexp("sweep", "mine", *SMALL, "tokenizer=byte", "data=verses", "--json")
    assert ended.returncode == 0, ended.stderr
    assert len(json.loads(ended.stdout)["runs"]) == 4
    listed = {kind: lmexp("list", kind).stdout for kind in ("optims", "schedules", "launchers", "trainers", "sweeps")}
    assert (
        "Sign descent" in listed["optims"] and "adamw" in listed["optims"] and "A straight line" in listed["schedules"]
    )
    assert "slurm" in listed["launchers"] and "default" in listed["trainers"] and "mine" in listed["sweeps"]
    wrong = lmexp(
        "plan",
        "mine",
        *SMALL,
        "tokenizer=byte",
        "optim=signs",
        "schedule=halved",
        "schedule.steps=3",
        "+optim.decai=0.5",
    )
    assert wrong.returncode == 2 and "Did you mean 'decay'?" in wrong.stderr


def test_a_strangers_run_and_sweep_are_refused_before_anything_is_imported(tmp_path: Path, lmexp: Lmexp):
    write_study(tmp_path)
    trained = lmexp("train", *SMALL, *OWN)
    assert trained.returncode == 0, trained.stderr
    (run,) = runs(tmp_path, "train")
    # Without the configs that named it, the folder holds a run and a package of somebody else's.
    shutil.rmtree(tmp_path / "conf")
    (tmp_path / "my_study" / "imports.txt").unlink()
    (tmp_path / "theirs.yaml").write_text(
        "sweep: {seeds: 1}\ncallbacks: [{_target_: my_study.parts.Counter, file: steps.txt}]\n"
    )
    for words in (
        ["generate", run.name, "0 roses 0", "--tokens", "5"],
        ["eval", run.name],
        ["sweep", "theirs.yaml", *SMALL, "tokenizer=byte"],
        ["sync", "train"],
    ):
        ended = lmexp(*words)
        assert ended.returncode == 2 and "--trust my_study" in ended.stderr, (words, ended.stderr)
    run.update_state(state="failed")
    (run.path / "record.json").unlink()
    ended = lmexp("retry", "train")
    assert ended.returncode != 0 and "--trust my_study" in ended.stdout + ended.stderr + run.log.read_text()
    assert imports(tmp_path) == 0

    assert lmexp("retry", "train", "--trust", "my_study").returncode == 0
    assert run.read_record() and imports(tmp_path) > 0
    for words in (
        ["generate", run.name, "0 roses 0", "--tokens", "5"],
        ["sweep", "theirs.yaml", *SMALL, "tokenizer=byte"],
    ):
        ended = lmexp(*words, "--trust", "my_study")
        assert ended.returncode == 0, (words, ended.stderr)


def test_an_installed_package_brings_configs_and_code(tmp_path: Path, lmexp: Lmexp):
    project = tmp_path / "project"
    write_study(project)
    shutil.move(project / "conf", project / "my_study" / "conf")
    (project / "my_study" / "sweeps").mkdir()
    (project / "my_study" / "sweeps" / "signs.yaml").write_text(
        "# Does the sign suffice?\nsweep: {grid: {optim: [adamw, signs]}}\n"
    )
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "my-study"\nversion = "1.5"\n'
        '[project.entry-points."lmexp.plugins"]\nmy_study = "my_study"\n'
        '[tool.setuptools]\npackages = ["my_study"]\npackage-data = {my_study = ["conf/*/*.yaml", "sweeps/*.yaml"]}\n'
    )
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", "--no-deps",
                    "--target", str(site), str(project)], check=True)  # fmt: skip
    # A fresh interpreter: the server that commands are forked from has its search path already.
    fresh = {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    assert "Does the sign suffice?" in lmexp("list", "sweeps", **fresh).stdout
    assert "Sign descent" in lmexp("list", "optims", **fresh).stdout
    ended = lmexp("sweep", "signs", *SMALL, "tokenizer=byte", "data=verses", **fresh)
    assert ended.returncode == 0, ended.stderr
    configs = [yaml.safe_load((run.path / "config.yaml").read_text()) for run in runs(tmp_path, "signs")]
    versions = [config["code"].get("my_study.parts.SignSGD") for config in configs]
    assert {(version["package"], version["version"]) for version in versions if version} == {("my-study", "1.5")}
