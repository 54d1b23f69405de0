"""What is refused of models of the transformers library: pickles, strangers' code, and requests that do not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.cost.hf import describe, fingerprint, measure
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.train.training import _model as first_model
from tests.models.hf_models import (
    CONTEXT,
    STACK,
    VOCAB,
    fresh,
    model_of,
    pretrained,
    tokens_of,
)


def test_pickles_are_not_read(folders: dict[str, Path]):
    weights = folders["causal"] / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    for what in (lambda config: build_model(config, 0), fingerprint):
        with pytest.raises(UserError, match=r"has pytorch_model.bin, which is not read: pickles can run code"):
            what(pretrained(folders["causal"]))
    weights.with_name("pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="has no weights"):
        build_model(pretrained(folders["causal"]), 0)


CODE = """
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel
Path({marker!r}).touch()
class OwnConfig(GPT2Config):
    model_type = "own"
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_runs_only_where_the_config_says_so(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import transformers.dynamic_module_utils

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, marker = folders["causal"], tmp_path / "ran"
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": code}))
    for what in (describe, lambda config: build_model(config, 0)):
        with pytest.raises(UserError, match=r"needs code .*: own.py. model.trust_remote_code=true runs it, and it can"):
            what(pretrained(folder))
    assert not marker.exists()
    with torch.no_grad():
        assert build_model(pretrained(folder, trust_remote_code=True), 0)(tokens_of(1)).shape == (1, CONTEXT, VOCAB)
    assert marker.exists()
    trained = build_model(pretrained(folder, trust_remote_code=True), 0).eval()
    known = describe(pretrained(folder, trust_remote_code=True, fingerprint="x"))
    again = build_model(known.without_weights(), 1).eval()  # as a finished run builds it, before it reads its weights
    assert not torch.equal(again(tokens_of(1)), trained(tokens_of(1)))
    again.load_state_dict(trained.state_dict())
    assert torch.equal(again(tokens_of(1)), trained(tokens_of(1)))


def test_code_that_is_not_needed_is_not_run(folders: dict[str, Path]):
    config = json.loads((folders["causal"] / "config.json").read_text())
    code = {"AutoModelForCausalLM": "nowhere.Model"}
    (folders["causal"] / "config.json").write_text(json.dumps(config | {"auto_map": code}))
    assert type(build_model(pretrained(folders["causal"]), 0).model).__name__ == "GPT2LMHeadModel"


def test_a_kernel_of_the_hub_is_code_too(folders: dict[str, Path]):
    path = folders["causal"] / "config.json"
    plain = json.loads(path.read_text())
    for asked in (
        {"_attn_implementation": "some/kernel"},
        {"attn_implementation": {"": "paged|some/kernel"}},
        {"experts_implementation": "some/kernel"},
        {"text_config": {"_attn_implementation_internal": "some/kernel"}},
    ):
        path.write_text(json.dumps(plain | asked))
        for what in (describe, lambda config: build_model(config, 0)):
            with pytest.raises(
                UserError, match=r"asks for code of the hub: .*some/kernel.*model.trust_remote_code=true"
            ):
                what(pretrained(folders["causal"]))
    path.write_text(json.dumps(plain))
    asked = {"_attn_implementation": "some/kernel"}
    for config in (
        pretrained(folders["causal"], config=asked),
        fresh("gpt2", config=asked),
        fresh("gpt2", config=asked, fingerprint="of a folder that is gone"),
    ):
        with pytest.raises(UserError, match=r"model.trust_remote_code=true runs it"):
            build_model(config, 0)
    path.write_text(json.dumps(plain | {"_attn_implementation": "eager"}))
    build_model(pretrained(folders["causal"]), 0)


def test_an_encoder_that_would_see_what_it_predicts_is_refused():
    for what in (measure, lambda config: build_model(config, 0)):
        with pytest.raises(UserError, match="this bert would see the tokens that it predicts"):
            what(fresh("bert", predicts="causal"))
    assert build_model(fresh("bert", predicts="causal", config={**STACK, "is_decoder": True}), 0)
    # One whose modules do not say so.
    xlnet = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
    with pytest.raises(UserError, match="this xlnet would see the tokens that it predicts"):
        build_model(fresh("gpt2", model_type="xlnet", config=xlnet), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "needs model.model_type .* or model.pretrained"),
        ({"model_type": "gpt2x"}, "model.model_type=gpt2x is no architecture of transformers. Did you mean 'gpt2'?"),
        ({"config": {"n_layr": 2}}, "model.config.n_layr: gpt2 has no such key. Did you mean 'n_layer'?"),
        ({"config": {"n_layer": "two"}}, "model.config does not make a gpt2: .*n_layer.* expected int, got str"),
        ({"predicts": "masked"}, "model.predicts=masked: transformers .* has no such head for gpt2"),
        ({"context": 17}, "model.context=17 is more than the 16 positions of this gpt2"),
        (
            {"config": {"vocab_size": 60, "n_positions": 16}},
            "model.vocab_size=61, and the model's own vocabulary has 60 tokens",
        ),
    ],
)
def test_a_wrong_request_is_one_short_message(changes: dict, message: str):
    with pytest.raises(UserError, match=message) as raised:
        build_model(fresh("gpt2", **changes), 0)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_a_folder_that_cannot_be_read_is_one_short_message(folders: dict[str, Path], tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        build_model(pretrained(tmp_path / "nothing"), 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the folder has no config.json"):
        build_model(pretrained(tmp_path / "empty"), 0)
    with pytest.raises(UserError, match=r"model.model_type=bert, and .* is a gpt2"):
        build_model(pretrained(folders["causal"], model_type="bert"), 0)
    with pytest.raises(UserError, match="cannot load "):
        (folders["causal"] / "model.safetensors").write_bytes(b"broken")
        build_model(pretrained(folders["causal"]), 0)


def test_weights_that_are_missing_are_not_drawn_in_silence(folders: dict[str, Path]):
    for name, head in (("masked", "cls."), ("seq2seq", "lm_head.")):  # the second is tied
        file = folders[name] / "model.safetensors"
        weights = load_file(file)
        without_head = {name: weight for name, weight in weights.items() if not name.startswith(head)}
        save_file(without_head, file, {"format": "pt"})
        drawn = build_model(pretrained(folders[name], name), 0).drawn
        assert set(drawn) >= weights.keys() - without_head.keys() and all(name.startswith(head) for name in drawn)
        body = next(name for name in weights if "layer.1." in name or "block.1." in name)
        save_file({key: weight for key, weight in weights.items() if key != body}, file, {"format": "pt"})
        with pytest.raises(UserError, match=f"has no weights for {body}"):
            build_model(pretrained(folders[name], name), 0)


def test_training_says_that_a_head_starts_fresh(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]):
    file = folders["masked"] / "model.safetensors"
    weights = {name: weight for name, weight in load_file(file).items() if not name.startswith("cls.")}
    save_file(weights, file, {"format": "pt"})
    words = ["model=hf_pretrained", f"model.pretrained={folders['masked']}", "model.predicts=masked"]
    config = Composer(paths.search_roots(), words=[*words, "model.context=16", "task=masked_lm"]).config({})
    first_model(config)
    assert "has no weights for its head over the vocabulary: it starts fresh" in capsys.readouterr().out


def test_a_masked_model_continues_no_text():
    with pytest.raises(UserError, match="bert keeps no keys and values"):
        model_of("bert").new_cache(1)


@pytest.mark.slow
def test_the_library_leaves_nothing_in_the_log(folders: dict[str, Path]):
    """Special tokens outside of the vocabulary, heads without weights and long texts make it talk elsewhere."""
    code = """
import torch
from lmexp.config.models.hf import HFConfig
from lmexp.cost.hf import describe, measure
from lmexp.models.build import build_model
known = {"_target_": "lmexp.models.hf.HFModel", "name": "t", "context": 16, "predicts": "causal"}
shape = {"n_layer": 1, "n_embd": 8, "n_head": 2}
fresh = HFConfig.model_validate({**known, "model_type": "gpt2", "vocab_size": 61, "config": shape})
measure(describe(fresh))
build_model(fresh, 0)(torch.zeros(1, 16, dtype=torch.int64)).sum().backward()
build_model(HFConfig.model_validate({**known, "pretrained": FOLDER}), 0)(torch.zeros(1, 16, dtype=torch.int64))
"""
    code = code.replace("FOLDER", repr(str(folders["causal"])))
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
