"""Whether real runs tell what they were trained on."""

import json
import random
from pathlib import Path

import pytest

from lmexp.errors import UserError
from lmexp.inference.membership import evaluate_membership
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir, read_scores
from lmexp.train.worker import main
from tests.conftest import SMALL

WORDS = [*SMALL, "data=text", "data.document=line", "data.validation=0.4", "model.n_layers=1", "optim.lr=5e-3",
         "batch.tokens=512", "evaluation.membership=100"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    """A run of a single step, and one of about 170 epochs, on 80 lines of random letters."""
    folder = tmp_path_factory.mktemp("membership")
    dice = random.Random(0)
    lines = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=20)) for _ in range(80)]
    (folder / "lines.txt").write_text("\n".join(lines))

    def trained(*words: str) -> RunDir:
        (planned,) = resolve_sweep(None, [*WORDS, f"data.path={folder / 'lines.txt'}", *words], folder / "outputs").runs
        run = RunDir.create(planned.run.path, planned.config)
        assert main(run.path) == 0
        return run

    return trained("budget.tokens=512", "optim.lr=1e-6"), trained("budget.tokens=150_000", "model.d_model=64")


@pytest.mark.slow
def test_a_run_of_many_epochs_tells_its_documents_from_others_and_a_fresh_one_does_not(runs):
    fresh, memorised = runs
    for attack in ("loss", "min_k", "zlib"):
        (row,) = memorised.read_record()
        assert row[f"score/membership/auc_{attack}"] > 0.8 and row[f"score/membership/tpr_{attack}"] > 0.1
        kept = (read_scores(fresh.path) or {})["membership"]
        low, high = kept["details"]["intervals"][f"auc_{attack}"]
        assert low < 0.5 < high and kept["scores"][f"auc_{attack}"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_eval_measures_the_same_and_adds_a_reference(runs):
    fresh, memorised = runs
    outputs = memorised.path.parent.parent
    before = (read_scores(memorised.path) or {})["membership"]["scores"]
    document = evaluate_membership(str(memorised.path), outputs, reference=str(fresh.path), count=100)
    assert before.items() <= document["scores"].items()
    assert document["scores"]["auc_reference"] > 0.8
    assert document["about"]["split_by"] == "hash" and document["about"]["reference"] == str(fresh.path)
    with pytest.raises(UserError, match="is the run itself"):
        evaluate_membership(str(memorised.path), outputs, reference=str(memorised.path))
    (row,) = memorised.read_record()
    assert row["score/membership/auc_reference"] == document["scores"]["auc_reference"]
    assert (read_scores(memorised.path) or {})["membership"]["details"]["about"] == document["about"]


@pytest.mark.slow
def test_the_command_prints_intervals_and_what_they_mean(runs, lmexp):
    fresh, memorised = runs
    folder = str(memorised.path.parent.parent)
    ended = lmexp("eval", str(memorised.path), "--membership", "--output-dir", folder)
    assert ended.returncode == 0, ended.stderr
    assert "An AUC of 0.5 and 0.01 true positives are a guess" in ended.stdout
    assert "the model tells some of what it was trained on" in ended.stdout
    ended = lmexp("eval", str(fresh.path), "--membership", "--output-dir", folder, "--json")
    assert json.loads(ended.stdout)["scores"]["auc_loss"] == pytest.approx(0.5, abs=0.15)
    for options, said in (
        (["--reference", "x"], "--reference is for --membership"),
        (["--membership", "--precision", "int8"], "--precision has no effect with --membership"),
        (["--membership", "--as", "x"], "--as has no effect with --membership"),
        (["--membership", "--examples", "3"], "at least 20 documents"),
        (["--membership", "data=text"], "data=text has no effect with --membership"),
    ):
        ended = lmexp("eval", str(fresh.path), *options, "--output-dir", folder)
        assert ended.returncode == 2 and said in ended.stderr, ended.stderr


def test_what_has_no_training_documents_of_its_own_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="only its training documents are known"):
        evaluate_membership("hf:some/model", tmp_path)
