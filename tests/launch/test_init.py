"""Runs that begin with the weights of another: which one, in which order, and what of it they take."""

import json
from pathlib import Path

import pytest
from torch import Tensor

from lmexp.errors import UserError
from lmexp.launch.pending import Listed
from lmexp.launch.queue import run_sweep
from lmexp.resolve.planned import Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.state import State
from lmexp.train.checkpoint import load_final
from tests.launch.test_queue import Notes

MODEL = ["model.context=96", "model.d_model=16", "batch.tokens=768", "tokenizer=byte", "launcher.threads=1"]
CLASSIFY = [*MODEL, "task=classify", "data=sentiment", "data.count=300", "budget.tokens=7680", "trainer.log_every=5"]
PRETRAIN = "+init.pretrain={{task: {task}, data: text, data.path: {text}, data.document: paragraph, seed: 0}}"


def sweep(
    outputs: Path, text: Path, *words: str, model: str = "gpt_nano", task: str = "causal_lm", pretrain: str = PRETRAIN
) -> Sweep:
    chain = pretrain.format(task=task, text=text)
    return resolve_sweep(None, [*CLASSIFY, f"model={model}", chain, *words], outputs)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def trained(outputs: Path, text: Path) -> dict[str, RunDir]:
    """Run a study of one pretrained model that two seeds, and a frozen body, begin with."""
    study = sweep(outputs, text, "seed=0,1", "init.freeze=false,true")
    states = run_sweep(study, Notes())
    assert [state.state for state in states] == ["done"] * len(states), states
    return {planned.run.name: planned.run for planned in study.runs}


def named(trained: dict[str, RunDir], *parts: str) -> RunDir:
    (found,) = [run for name, run in trained.items() if all(part in name for part in parts)]
    return found


def weights(run: RunDir) -> dict[str, Tensor]:
    return load_final(run).model.state_dict()


def test_one_pretrained_model_serves_all_cells_that_ask_for_it(trained: dict[str, RunDir]):
    assert sorted(name.rsplit("-", 1)[0] for name in trained) == [
        "freezefalse-seed0-classify",
        "freezefalse-seed1-classify",
        "freezetrue-seed0-classify",
        "freezetrue-seed1-classify",
        "seed0-causal_lm",
    ]


def test_a_frozen_body_is_the_pretrained_one_and_another_has_moved(trained: dict[str, RunDir]):
    before = weights(named(trained, "causal_lm"))
    frozen, free = (weights(named(trained, "seed1", f"freeze{which}")) for which in ("true", "false"))
    body = [name for name in frozen if name.startswith("body.")]
    assert body and all(frozen[name].equal(before[name.removeprefix("body.")]) for name in body)
    assert not any(free[name].equal(frozen[name]) for name in body if name.endswith("weight"))


def test_the_record_counts_no_backward_pass_of_a_frozen_body(trained: dict[str, RunDir]):
    frozen, free = (named(trained, "seed0", f"freeze{which}").read_record()[0] for which in ("true", "false"))
    parts = [name for name in free if name.startswith("flops/") and free[name]]
    assert frozen["flops/head"] == free["flops/head"]
    for name in parts:
        if name != "flops/head":
            assert frozen[name] == pytest.approx(free[name] / 3)  # forward, without the two products of backward


def test_two_pretrainings_are_two_arms_of_a_study(text: Path, tmp_path: Path):
    """Their runs agree in all other axes: without names of their own they would count as seeds of one cell."""
    chains = [PRETRAIN.format(task="causal_lm", text=text).split("=", 1)[1] for _ in range(2)]
    chains = [
        chain.replace("seed: 0", f"budget.tokens: {tokens}") for chain, tokens in zip(chains, (768, 1536), strict=True)
    ]
    points = ", ".join(f"{{init.pretrain: {chain}}}" for chain in ("{}", *chains))
    study = resolve_sweep(None, [*CLASSIFY, "model=gpt_nano", f"sweep.points=[{points}]"], tmp_path)
    names = ["scratch", "pretrained-tokens768", "pretrained-tokens1536"]
    assert study.axes["init"] == names
    assert [(run.values["init"], run.config.task.name) for run in study.runs] == [
        ("scratch", "classify"),
        *((name, task) for name in names[1:] for task in ("causal_lm", "classify")),
    ]


def test_a_run_waits_for_the_one_whose_weights_it_needs(outputs: Path, text: Path, tmp_path: Path):
    study = sweep(tmp_path, text)
    first, second = study.runs
    assert second.needs is first or second.needs.identity == first.identity
    source = Listed([second, first])  # in whatever order they come
    assert source.peek() is first and source.pop() is first
    assert source.peek() is None and source.rest == [second]
    RunDir.create(first.run.path, first.config)
    assert source.peek() is None
    first.run.write_state(State(state="failed"))  # then it says so itself
    assert source.peek() is second


def test_its_identity_follows_what_it_begins_with_and_not_where_that_lies(outputs: Path, text: Path, tmp_path: Path):
    here, there = (sweep(place, text, "seed=0").runs[-1] for place in (outputs, tmp_path))
    assert here.identity == there.identity and here.config.init.run != there.config.init.run
    longer = sweep(tmp_path, text, "seed=0", pretrain=PRETRAIN.replace("seed: 0", "budget.tokens: 9999")).runs[-1]
    scratch = resolve_sweep(None, [*CLASSIFY, "model=gpt_nano"], tmp_path).runs[-1]
    assert len({here.identity, longer.identity, scratch.identity}) == 3


def test_a_finished_run_is_begun_with_by_its_name_model_and_tokenizer_included(trained, outputs: Path, tmp_path: Path):
    name = named(trained, "causal_lm").name
    words = [*CLASSIFY, "model=gpt_tiny", "tokenizer=char", f"init.run={name}"]
    (planned,) = resolve_sweep(None, words, outputs).runs
    assert planned.config.model.d_model == 16 and planned.config.tokenizer.kind == "saved"
    for wrong, said in {
        f"init.run={name}x": "there is no run",
        f"init.run={named(trained, 'seed0', 'freezetrue').name} +init.pretrain={{seed: 1}}": "set one of them",
    }.items():
        with pytest.raises(UserError, match=said):
            resolve_sweep(None, [*CLASSIFY, *wrong.split(" ", 1)], outputs)


def test_an_encoder_is_pretrained_by_masks_and_keeps_its_tokenizer(text: Path, tmp_path: Path):
    study = sweep(tmp_path, text, model="bert_nano", task="masked_lm")
    assert [state.state for state in run_sweep(study, Notes())] == ["done", "done"]
    first, second = (planned.run.read_record()[0] for planned in study.runs)
    assert first["tokenizer_fingerprint"] == second["tokenizer_fingerprint"]
    assert first["perplexity"] > 1 and second["perplexity"] is None and second["bits_per_byte"] is None
    kept = json.loads((study.runs[1].run.path / "scores.json").read_text())["classify"]
    assert sum(map(sum, kept["details"]["confusion"])) == 300 - second_train(study)
    assert second["score/classify/accuracy"] == pytest.approx(kept["scores"]["accuracy"])


def second_train(study: Sweep) -> int:
    """Return how many examples the fine-tuned run has trained on."""
    from lmexp.data.prepare import prepare
    from lmexp.runs.directory import STORES

    return prepare(study.runs[1].config, study.folder.parent / STORES).documents("train")
