"""One number, on 1, 2 and 3 processes, for any micro-batch: real processes, that talk by gloo."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmexp.config.schema import RunConfig
from lmexp.runs.directory import dump_config

pytestmark = pytest.mark.slow

WAYS = {1: (1, 4, 12), 2: (2, 3), 3: (1, 4)}
"""Micro-batches by number of processes; 12 sequences a step."""


@pytest.fixture(scope="module")
def results(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Path]:
    """Where each way of sharing out the same sequences left its curve and its weights."""
    return shared_out(WAYS, small, tmp_path_factory.mktemp("ranks"))


def shared_out(ways: dict[int, tuple[int, ...]], words: list[str], folder: Path) -> dict[tuple[int, int], Path]:
    """Train on the same sequences in each of these ways; return where each left its curve and its weights."""
    from lmexp.config import paths
    from lmexp.config.compose import Composer

    words = [*words, "model.vocab_size=257", f"batch.tokens={12 * 32}", "trainer.log_every=1", "optim=sgd",
             "trainer.accelerator=cpu"]  # fmt: skip
    found = {}
    for world, sizes in ways.items():
        (folder / str(world)).mkdir(parents=True)
        config: RunConfig = Composer(paths.search_roots(), words=[*words, f"trainer.devices={world}"]).config({})
        file = folder / f"{world}.yaml"
        file.write_text(dump_config(config))
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"] if world > 1 else []
        script = Path(__file__).with_name("ranks.py")
        words_ = [sys.executable, *launcher, script, file, folder / str(world), ",".join(map(str, sizes))]
        ended = subprocess.run(list(map(str, words_)), capture_output=True, text=True, timeout=200)
        assert ended.returncode == 0, ended.stderr[-3000:]
        found |= {(world, size): folder / str(world) / str(size) for size in sizes}
    return found


def column(place: Path, name: str) -> list[float]:
    points = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return [point[name] for point in points if name in point]


@pytest.mark.parametrize("name", ["loss", "perplexity", "bits_per_byte", "accuracy", "train_loss"])
def test_it_is_the_same_however_unequal_sequences_are_shared_out(results: dict, name: str):
    expected = column(results[1, 12], name)
    assert len(expected) == 2 and (expected[0] != expected[1] or name == "accuracy")
    for way, place in results.items():
        assert column(place, name) == pytest.approx(expected, rel=1e-6, abs=1e-9), way


def test_the_gradient_weighs_each_token_of_a_step_the_same(results: dict):
    expected = torch.load(results[1, 12] / "weights.pt")
    for way, place in results.items():
        for name, weight in torch.load(place / "weights.pt").items():
            assert torch.allclose(weight, expected[name], rtol=0, atol=1e-6), (way, name)


def test_the_loss_is_the_mean_over_the_tokens_that_count(results: dict, config: Callable[..., RunConfig]):
    from torch.nn import functional as F

    from lmexp.models.build import build_model
    from tests.train.ranks import IGNORED, texts

    batch = texts(12, 32, seed=0)
    with torch.no_grad():
        logits = build_model(config("model.vocab_size=257").model, 0)(batch["inputs"]).double()
    expected = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORED)
    assert column(results[1, 1], "train_loss")[0] == pytest.approx(float(expected), rel=1e-6)
