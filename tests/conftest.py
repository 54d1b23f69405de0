"""What all tests share: small texts, small configs, the command line as a user has it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.schema import RunConfig

SMALL = [
    "model=gpt_nano",
    "model.context=32",
    "model.d_model=32",
    "tokenizer=byte",
    "batch.tokens=256",
    "budget.tokens=5120",  # 20 steps
    "trainer.log_every=5",
    "launcher.threads=1",  # floating-point sums depend on how many threads share them
]
"""A run of a second."""

Lmexp = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs mark the device they use in the temporary folder: tests side by side must not see each other's."""
    folder = tmp_path_factory.mktemp("tmp")
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side, one process a core: threads that wait for each other there make them twice as slow."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 200 short documents, in one file, a paragraph each."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    words = "the cat sat on a mat and saw one red bird fly over our old stone house".split()  # noqa: SIM905
    documents = [" ".join(words[(i * k) % len(words)] for k in range(1, 30)) for i in range(200)]
    file.write_text("\n\n".join(f"{i}: {words}" for i, words in enumerate(documents)))
    return file


@pytest.fixture(scope="session")
def small(text: Path) -> list[str]:
    """The overrides of a run of a second, on the small text."""
    return [*SMALL, "data=text", f"data.path={text}", "data.document=paragraph"]


@pytest.fixture
def config(small: list[str]) -> Callable[..., RunConfig]:
    """Compose a small config, with overrides."""
    return lambda *words: Composer(paths.search_roots(), words=[*small, *words]).config({})


@pytest.fixture
def lmexp(tmp_path: Path) -> Lmexp:
    """Run the command as a user would, in an empty folder; outputs go to `outputs` in it."""

    def run(*words: str, timeout: float = 120, prefix: tuple[str, ...] = (), **environment: str):
        return subprocess.run(
            [*prefix, sys.executable, "-m", "lmexp.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "160", "LMEXP_OUTPUTS": str(tmp_path / "outputs"), **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
