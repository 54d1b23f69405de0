"""Wrong input, as a user meets it: one short message, exit code 2, nothing started, nothing overwritten."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SMALL, Lmexp

SWEEP = """# @package _global_
sweep:
  grid:
    model.d_model: [30, 50]
    model.n_heads: [4, 7]
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Texts that are wrong in one way each."""
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "t.conll").write_text("cook B-V\n")
    (tmp_path / "short.txt").write_text("a few words only")
    (tmp_path / "latin1.txt").write_bytes("one line\ncaf\u00e9 au lait\n".encode("latin-1"))
    (tmp_path / "words.txt").write_text("one two three four five six seven eight nine ten " * 200)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "invalid.yaml").write_text(SWEEP)
    return tmp_path


TEXT = ["train", *SMALL, "data=text", "data.split=tail", "data.validation=0.3"]

WRONG = {
    "unknown model": (["train", "model=gpt_nona"], "there is no model 'gpt_nona'. Did you mean 'gpt_nano'?"),
    "misspelt key": (
        ["train", "model.n_layer=2"],
        "model.n_layer is not a key of the config. Did you mean 'model.n_layers'?",
    ),
    "wrong type": (["train", "model.n_layers=two"], "model.n_layers=two: input should be a valid integer"),
    "heads that do not divide": (["train", "model.n_heads=3"], "model.d_model=128 is not divisible by model.n_heads=3"),
    "budget of zero": (["train", "budget.tokens=0"], "budget.tokens=0: input should be greater than 0"),
    "budget below one step": (
        [*TEXT, "data.path=words.txt", "budget.tokens=9"],
        "less than one step of batch.tokens=256",
    ),
    "context longer than the text": (
        [*TEXT, "data.path=short.txt"],
        "model.context=32 is longer than the training text, which has",
    ),
    "empty file": ([*TEXT, "data.path=empty.txt"], "empty.txt"),
    "the same file on both sides": (
        ["train", *SMALL, "task=tag", "data=tags", "data.path=t.conll", "data.validation_path=t.conll"],
        "t.conll: this file is in data.path and in data.validation_path",
    ),
    "missing file": ([*TEXT, "data.path=nowhere.txt"], "nowhere.txt"),
    "invalid UTF-8": ([*TEXT, "data.path=latin1.txt"], "latin1.txt"),
    "vocabulary too large": (
        [*TEXT, "data.path=words.txt", "tokenizer=bpe", "tokenizer.vocab_size=5000"],
        "a vocabulary of 5000 is larger than the text supports",
    ),
    "precision that the device lacks": (
        [*TEXT, "data.path=words.txt", "trainer.accelerator=cpu", "precision=tf32"],
        "precision=tf32: ",
    ),
    "precision that Lightning would replace": (
        [*TEXT, "data.path=words.txt", "trainer.accelerator=cpu", "precision=fp16"],
        "precision=fp16: ",
    ),
    "negative price": (
        ["train", "hardware.dollars_per_hour=-1"],
        "hardware.dollars_per_hour=-1: input should be greater than or equal to 0",
    ),
    "unknown hardware": (
        ["train", "hardware=h100_sx"],
        "there is no hardware 'h100_sx'. Did you mean 'h100_sxm'?",
    ),
    "hardware of another kind": (
        [*TEXT, "data.path=words.txt", "trainer.accelerator=cpu", "hardware=h100_sxm"],
        "hardware=h100_sxm is no CPU",
    ),
    "dollars without a price": (
        [*TEXT, "data.path=words.txt", "budget.tokens=null", "budget.dollars=1"],
        "budget.dollars needs a price",
    ),
    "FLOPs below one step": (
        [*TEXT, "data.path=words.txt", "budget.tokens=null", "budget.flops=10"],
        "less than one step of batch.tokens=256",
    ),
    "seconds of no length": (["train", "budget.seconds=0"], "budget.seconds=0: input should be greater than 0"),
    "micro-batch that does not divide": (
        ["train", *SMALL, "batch.micro=3"],
        "batch.micro=3 does not divide the 8 sequences",
    ),
    "micro-batch that is no number": (["train", "batch.micro=most"], "batch.micro"),
    "fp8 that nobody has": (
        [*TEXT, "data.path=words.txt", "trainer.accelerator=cpu", "precision=fp8"],
        "precision=fp8: fp8 needs an NVIDIA GPU",
    ),
    "a model larger than the machine": (
        [*TEXT, "data.path=words.txt", "model.n_layers=10_000_000"],
        "gpt_nano needs 2,",
    ),
    "all cells invalid": (
        ["sweep", "invalid"],
        "none of the 4 cells can be run: model.d_model=30 is not divisible by model.n_heads=4",
    ),
    "unknown sweep": (["sweep", "invalids"], "there is no sweep 'invalids'. Did you mean 'invalid'?"),
    "several values without -m": (
        ["train", "seed=1,2"],
        "seed=1,2 names several runs; `lmexp train -m` sweeps over them",
    ),
    "no override": (["train", "gpt_nano"], "'gpt_nano' is not an override"),
    "foreign code": (["train", "optim._target_=os.system"], "optim"),
    "report of nothing": (["report", "demo"], "demo"),
    "status of nothing": (["status", "demo"], "demo"),
    "generate from nothing": (["generate", "demo"], "demo"),
    "plan of a mistake": (["plan", "invalid"], "none of the 4 cells can be run"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_input_is_one_message_and_nothing_starts(mistake: str, files: Path, lmexp: Lmexp):
    words, said = WRONG[mistake]
    ended = lmexp(*words)
    assert ended.returncode == 2, ended.stderr
    message = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and said in message[0] and len(message[0]) < 400
    assert "Traceback" not in ended.stderr and ended.stdout == ""
    assert not list(files.glob("outputs/[!.]*"))


def test_debug_shows_the_traceback(files: Path, lmexp: Lmexp):
    assert "Traceback" in lmexp("train", "model=gpt_nona", "--debug").stderr


def test_wrong_input_overwrites_nothing(files: Path, lmexp: Lmexp):
    good = [*TEXT, "data.path=words.txt"]
    assert lmexp(*good).returncode == 0
    before = {file: file.read_bytes() for file in files.glob("outputs/[!.]*/**/*") if file.is_file()}
    assert before
    assert lmexp(*good, "model.n_heads=3").returncode == 2
    assert {file: file.read_bytes() for file in files.glob("outputs/[!.]*/**/*") if file.is_file()} == before


def test_some_invalid_cells_are_listed_and_the_others_run(files: Path, lmexp: Lmexp):
    words = ["train", "-m", *SMALL, "data=text", "data.path=words.txt", "data.split=tail", "data.validation=0.3"]
    ended = lmexp(*words, "model.n_heads=2,3")
    assert ended.returncode == 0, ended.stderr
    assert "skipped: model.n_heads=3: model.d_model=32 is not divisible by model.n_heads=3" in ended.stderr
    assert len(list(files.glob("outputs/multirun/*/record.json"))) == 1


def without_privileges() -> tuple[str, ...]:
    """Permissions do not bind root: give up what lets it ignore them."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("running as root, without setpriv")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


@pytest.mark.slow
def test_an_output_folder_without_write_permission_is_said(files: Path, lmexp: Lmexp):
    (files / "outputs").mkdir(mode=0o555)
    ended = lmexp(*TEXT, "data.path=words.txt", prefix=without_privileges())
    assert ended.returncode == 2
    assert "error: cannot write" in ended.stderr and "Permission denied" in ended.stderr
    assert "Traceback" not in ended.stderr and not list((files / "outputs").iterdir())


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, mounted as `outputs`."""
    place = tmp_path / "outputs"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small disk here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_too_small_for_the_tokens_is_said(full_disk: Path, files: Path, lmexp: Lmexp):
    (files / "large.txt").write_text("one two three four five six seven eight nine ten " * 20_000)
    ended = lmexp(*TEXT, "data.path=large.txt")
    assert ended.returncode == 2
    assert "No space left on device" in ended.stderr and "Traceback" not in ended.stderr
    assert not list(full_disk.glob("[!.]*"))


def test_a_disk_too_small_for_the_runs_is_said_before_they_start(full_disk: Path, files: Path, lmexp: Lmexp):
    ended = lmexp(*TEXT, "data.path=words.txt")
    assert ended.returncode == 2
    assert "0 MB free; 1 run needs about" in ended.stderr and "Traceback" not in ended.stderr
    assert not list(full_disk.glob("[!.]*"))
