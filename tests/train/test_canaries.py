"""What real runs show of their canaries."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmexp.inference.score import score
from lmexp.models.sampling import sample
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir, read_scores
from lmexp.train.checkpoint import load_final
from lmexp.train.worker import main
from tests.train.together import train_together

MakeRun = Callable[..., RunDir]
PLANTED = ["data.canaries.count=2", "data.canaries.repeats=[0,32]"]
MEMORISED = [*PLANTED, "model.n_layers=1", "model.d_model=64", "optim.lr=1e-2", "batch.tokens=1024",
             "schedule=wsd", "budget.milestones=[0.1]", "budget.tokens=200_000"]  # fmt: skip
SCORES = ["score/privacy/exposure_0", "score/privacy/exposure_32",
          "score/privacy/extracted_0", "score/privacy/extracted_32"]  # fmt: skip


@pytest.fixture(scope="module")
def memorised(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of 40 passes over twenty short documents and 64 canaries."""
    folder = tmp_path_factory.mktemp("canaries")
    text = next(word for word in small if word.startswith("data.path=")).removeprefix("data.path=")
    (folder / "short.txt").write_text("\n\n".join(Path(text).read_text().split("\n\n")[:20]))
    words = [*small, f"data.path={folder / 'short.txt'}", "data.validation=0.2", *MEMORISED]
    (planned,) = resolve_sweep(None, words, folder / "outputs").runs
    run = RunDir.create(planned.run.path, planned.config)
    assert main(run.path) == 0
    return run


def canaries_in(run: RunDir) -> list[dict[str, Any]]:
    """Return the rows of scores.json on each canary."""
    return (read_scores(run.path) or {})["privacy"]["details"]["canaries"]


@pytest.mark.slow
def test_what_was_planted_often_is_exposed_and_extracted_and_what_was_not_is_not(memorised: RunDir):
    early, late = memorised.read_record()
    assert late["score/privacy/exposure_32"] == 10 and late["score/privacy/extracted_32"] == 1
    assert late["score/privacy/exposure_0"] < 5 and late["score/privacy/extracted_0"] == 0
    assert set(SCORES) <= early.keys(), "each milestone has its own"
    assert early["score/privacy/exposure_32"] > 5 and early["score/privacy/extracted_32"] == 0
    assert late["canary_tokens"] == early["canary_tokens"] == 64 * 25
    privacy = (read_scores(memorised.path) or {})["privacy"]
    assert {f"score/privacy/{name}": value for name, value in privacy["scores"].items()} == {n: late[n] for n in SCORES}
    assert privacy["details"]["references"] == 1023 and len(canaries_in(memorised)) == 4


@pytest.mark.slow
def test_the_finished_model_writes_what_counts_as_extracted_and_gives_the_probabilities_that_are_kept(
    memorised: RunDir,
):
    loaded = load_final(memorised)
    for row in canaries_in(memorised):
        own = score(loaded, row["text"]).log_probability / math.log(2)
        assert row["log2_probability"] == pytest.approx(own, rel=1e-4)
        prompt = [loaded.tokenizer.bos_id, *row["text"][:12].encode()]
        written = sample(loaded.model, prompt, 12, 32, temperature=0)
        assert row["extracted"] == (list(written) == list(row["text"][12:].encode()))


@pytest.mark.slow
def test_two_processes_that_share_the_weights_measure_what_one_does(make_run: MakeRun):
    words = [*PLANTED, "trainer.accelerator=cpu"]
    sharded = ["trainer.strategy=fsdp", "trainer.devices=2"]
    alone, together = make_run(*words, place="alone"), make_run(*words, *sharded, place="together")
    assert main(alone.path) == 0
    train_together(together.path)
    one, two = (canaries_in(run) for run in (alone, together))
    assert [row["log2_probability"] for row in one] == pytest.approx([r["log2_probability"] for r in two], rel=1e-5)
    assert [row["exposure"] for row in one] == pytest.approx([row["exposure"] for row in two], abs=0.1)
