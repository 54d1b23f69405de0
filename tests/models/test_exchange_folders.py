"""Models as folders: what transformers loads of ours, and we of its."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from lmexp.config.models import ModelConfig
from lmexp.config.models.base import ModelSection
from lmexp.config.models.hf import HFConfig
from lmexp.config.tasks.classify import ClassifyConfig
from lmexp.data.tokenizers.lossless import CharTokenizer
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.models.exchange.folders import export_folder, import_folder
from lmexp.models.hf import HFModel

CONTEXT = 16
TOKENIZER = CharTokenizer("abcdefghinotx \n<|>")
ROWS = TOKENIZER.vocab_size
SHAPE = {"name": "t", "n_layers": 2, "d_model": 24, "n_heads": 4, "context": CONTEXT, "vocab_size": ROWS, "d_ff": 40}
STACK = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt": {"_target_": "lmexp.models.gpt.GPT"},
    "gpt untied, no biases": {"_target_": "lmexp.models.gpt.GPT", "tie_embeddings": False, "bias": False},
    "llama": {"_target_": "lmexp.models.llama.Llama", "n_kv_heads": 2},
    "llama tied": {"_target_": "lmexp.models.llama.Llama", "tie_embeddings": True, "window": 5},
    "moe": {"_target_": "lmexp.models.moe.MoE", "n_experts": 3},
    "bert": {"_target_": "lmexp.models.bert.Bert", "vocab_size": ROWS + 1},
}
LABELS = ClassifyConfig.model_validate({"_target_": "lmexp.tasks.classify.Classify", "labels": ["a", "b"]})
HEADS = {"gpt": "CausalLM", "llama": "CausalLM", "moe": "CausalLM", "bert": "MaskedLM"}


def config_of(name: str) -> ModelSection:
    return TypeAdapter(ModelConfig).validate_python(SHAPE | FAMILIES[name])


def library_config(model_type: str, predicts: str, shape: dict[str, Any], rows: int = ROWS) -> HFConfig:
    shape = {key: value for key, value in shape.items() if key != "intermediate_size" or model_type != "opt"}
    values = {"name": "t", "model_type": model_type, "predicts": predicts}
    values |= {"config": shape, "vocab_size": rows, "context": CONTEXT}
    return HFConfig.model_validate({"_target_": "lmexp.models.hf.HFModel", **values})


def model_of(config: ModelSection) -> Any:
    model = build_model(config, 1).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def theirs_in(folder: Path, head: str) -> Any:
    import transformers

    model, told = getattr(transformers, f"AutoModelFor{head}").from_pretrained(folder, output_loading_info=True)
    assert not any(told[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def assert_equal_logits(ours: Any, theirs: Any) -> None:
    tokens = torch.randint(ROWS, (2, CONTEXT), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_loads_our_model_and_its_tokenizer(name: str, tmp_path: Path):
    from transformers import AutoTokenizer

    config = config_of(name)
    ours, folder = model_of(config), tmp_path / "new" / "folder"
    export_folder(config, ours, TOKENIZER, folder)
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]  # nothing is left aside
    head = HEADS[config.family]
    theirs = theirs_in(folder, head)
    assert_equal_logits(ours, theirs)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "a bad cab\n<|endoftext|> hid"
    assert tokenizer(text)["input_ids"] == [TOKENIZER.bos_id, *TOKENIZER.encode(text).tolist()]
    assert tokenizer.model_max_length == CONTEXT
    assert len(tokenizer) == config.vocab_size
    assert (tokenizer.mask_token_id == ROWS) if head == "MaskedLM" else tokenizer.mask_token is None
    if head == "CausalLM":
        assert theirs.config.eos_token_id == theirs.config.bos_token_id == TOKENIZER.bos_id


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_of_transformers_becomes_a_model_of_ours(name: str, tmp_path: Path):
    config = config_of(name)
    export_folder(config, model_of(config), TOKENIZER, tmp_path / "ours")
    theirs = theirs_in(tmp_path / "ours", HEADS[config.family])
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")  # in several files
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    read, weights = import_folder(tmp_path / "theirs", name="mine")
    assert read.name == "mine" and read.family == config.family
    model = build_model(read, 0).eval()
    model.load_state_dict(weights)
    assert_equal_logits(model, theirs)


@pytest.mark.parametrize(("model_type", "head", "rows"), [("gpt2", "CausalLM", ROWS), ("bert", "MaskedLM", ROWS + 1)])
def test_a_model_of_the_library_goes_back_to_it(model_type: str, head: str, rows: int, tmp_path: Path):
    shape = STACK if model_type == "bert" else {"n_embd": 24, "n_layer": 2, "n_head": 4}
    config = library_config(model_type, "causal" if head == "CausalLM" else "masked", shape, rows)
    ours = model_of(config)
    assert isinstance(ours, HFModel)
    export_folder(config, ours, TOKENIZER, tmp_path / "folder")
    assert_equal_logits(ours, theirs_in(tmp_path / "folder", head))


def test_what_transformers_has_no_model_for_is_refused_and_leaves_nothing(tmp_path: Path):
    lstm = TypeAdapter(ModelConfig).validate_python(
        {"_target_": "lmexp.models.lstm.LSTM", "name": "t", "n_layers": 1, "d_model": 8, "context": 8, "vocab_size": 9}
    )
    with pytest.raises(UserError, match="transformers has no model like family lstm"):
        export_folder(lstm, build_model(lstm, 0), TOKENIZER, tmp_path / "folder")
    moe = config_of("moe").model_copy(update={"n_shared_experts": 1})
    with pytest.raises(UserError, match="no shared experts"):
        export_folder(moe, build_model(moe, 0), TOKENIZER, tmp_path / "folder")
    for model_type, changes, task, said in (
        ("roberta", {}, None, "computes its positions from the padding token"),
        (
            "opt",
            {"ffn_dim": 40, "word_embed_proj_dim": 24},
            LABELS,
            "no head over labels that is one matrix and a bias",
        ),
    ):
        config = library_config(model_type, "masked" if model_type == "roberta" else "causal", STACK | changes)
        with pytest.raises(UserError, match=said):
            export_folder(config, build_model(config, 0, task), TOKENIZER, tmp_path / "folder", ["a", "b"])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path):
    config = config_of("gpt")
    model = model_of(config)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("words")
    for there in (tmp_path / "full", tmp_path / "full" / "file"):
        with pytest.raises(UserError, match="is there already, and not an empty folder"):
            export_folder(config, model, TOKENIZER, there)
    assert (tmp_path / "full" / "file").read_text() == "words"
    with pytest.raises(UserError, match="cannot write"):
        export_folder(config, model, TOKENIZER, tmp_path / "full" / "file" / "inside")
    (tmp_path / "empty").mkdir()
    export_folder(config, model, TOKENIZER, tmp_path / "empty")
    assert_equal_logits(model, theirs_in(tmp_path / "empty", "CausalLM"))


def test_a_folder_that_cannot_be_read_is_one_short_message(tmp_path: Path):
    config, folder = config_of("gpt"), tmp_path / "folder"
    export_folder(config, model_of(config), TOKENIZER, folder)
    settings = json.loads((folder / "config.json").read_text())
    with pytest.raises(UserError, match=r"nothing: there is no config.json"):
        import_folder(tmp_path / "nothing")
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "gpt_neo"}))
    with pytest.raises(
        UserError, match="holds a model of type gpt_neo; weights are taken over from gpt2, bert, llama, mistral"
    ):
        import_folder(folder)
    for broken in ("{", "[]", "{}"):
        (folder / "config.json").write_text(broken)
        with pytest.raises(UserError, match="says no model_type"):
            import_folder(folder)
    (folder / "config.json").write_text(json.dumps(settings | {"architectures": ["GPT2ForTokenClassification"]}))
    with pytest.raises(UserError, match=r"holds a head over labels \(GPT2ForTokenClassification\)"):
        import_folder(folder)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"cannot read .*model.safetensors"):
        import_folder(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has pytorch_model.bin, which is not read: pickles can run code"):
        import_folder(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, bad)
        for key in ("n_layer", "n_head", "n_embd", "n_positions")
        for bad in (-1, 0, "two", None, 1e30, [], True)
    ]
    + [("n_layer", 10**30), ("n_embd", 10**30), ("n_head", 10**30), ("resid_pdrop", "much"), ("n_inner", -1)],
)
def test_a_config_that_describes_no_model_is_one_message(tmp_path: Path, key: str, value: object):
    folder = a_gpt2(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {key: value}))
    with pytest.raises(UserError) as refused:
        import_folder(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_no_model(tmp_path: Path, bad: float):
    folder = a_gpt2(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.ln_f.bias"][1] = bad
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"the weight 'transformer.ln_f.bias' holds values that are not finite"):
        import_folder(folder)
    with pytest.raises(UserError, match="not finite"):
        named = {"target": "lmexp.models.hf.HFModel", "name": "x", "predicts": "causal"}
        build_model(HFConfig(**named, pretrained=str(folder), context=8), 0)


def a_gpt2(folder: Path) -> Path:
    """Write a model of transformers, as its library does, and return its folder."""
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=16, vocab_size=8, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    return folder / "gpt2"
