"""What models of the transformers library hold and cost: what our own families count for the same shapes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.hf import attention_spans, library_config
from lmexp.config.models.base import ModelSection, TransformerSection
from lmexp.config.models.bert import BertConfig
from lmexp.config.models.count import ModelCount
from lmexp.config.models.encdec import EncDecConfig
from lmexp.config.models.gpt import GPTConfig
from lmexp.config.models.hf import HFConfig
from lmexp.config.models.llama import LlamaConfig
from lmexp.config.models.moe import MoEConfig
from lmexp.cost.flops import count_model
from lmexp.cost.hf import describe, fingerprint, measure
from lmexp.errors import UserError
from lmexp.models.build import build_model

CONTEXT, VOCAB = 32, 61
SHAPE = {"name": "t", "n_layers": 3, "d_model": 48, "n_heads": 4, "context": CONTEXT, "vocab_size": VOCAB}
STACK = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


def ours(section: type[TransformerSection], **changes: object) -> ModelSection:
    names = {GPTConfig: "gpt.GPT", LlamaConfig: "llama.Llama", MoEConfig: "moe.MoE", BertConfig: "bert.Bert",
             EncDecConfig: "encdec.EncDec"}  # fmt: skip
    return section.model_validate({"_target_": f"lmexp.models.{names[section]}", **SHAPE, **changes})


def theirs(model_type: str, predicts: str, **config: object) -> HFConfig:
    values = {"name": "hf", "model_type": model_type, "predicts": predicts, "config": config, "vocab_size": VOCAB}
    return HFConfig.model_validate({"_target_": "lmexp.models.hf.HFModel", "context": CONTEXT, **values})


def counted(config: HFConfig) -> ModelCount:
    config = describe(config)
    return count_model(config.model_copy(update={"size": measure(config)}))


CASES = {
    "gpt2": (theirs("gpt2", "causal", n_layer=3, n_embd=48, n_head=4, n_positions=CONTEXT), ours(GPTConfig)),
    "gpt2 untied": (
        theirs("gpt2", "causal", n_layer=3, n_embd=48, n_head=4, n_positions=CONTEXT, tie_word_embeddings=False),
        ours(GPTConfig, tie_embeddings=False),
    ),
    "llama": (
        theirs("llama", "causal", **STACK, num_key_value_heads=2, intermediate_size=100),
        ours(LlamaConfig, n_kv_heads=2, d_ff=100),
    ),
    "mixtral": (
        theirs("mixtral", "causal", **STACK, num_key_value_heads=2, intermediate_size=100, num_local_experts=4),
        ours(MoEConfig, n_kv_heads=2, d_ff=100, n_experts=4),
    ),
    "bert": (
        theirs("bert", "masked", **STACK, intermediate_size=192, max_position_embeddings=CONTEXT, type_vocab_size=1),
        ours(BertConfig),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_count_is_that_of_our_own_family(case: str):
    config, own = CASES[case]
    count, expected = counted(config), count_model(own)
    assert count.flops_per_token == expected.flops_per_token
    assert count.conventions()["flops_per_token_causal"] == expected.conventions()["flops_per_token_causal"]
    for part in ("attention_scores", "head", "head_transform"):
        assert count.parts.get(part) == expected.parts.get(part)
    assert count.n_params_matmul == expected.n_params_matmul
    token_types = 48 if case == "bert" else 0  # our BERT has no table of sentence numbers
    assert count.n_params == expected.n_params + token_types
    assert count.n_params_active == expected.n_params_active + token_types
    assert count.n_params_embedding == expected.n_params_embedding + token_types


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_two_stacks_count_as_our_encoder_and_decoder(model_type: str):
    shapes = {
        "t5": {"d_model": 48, "num_layers": 3, "num_heads": 4, "d_kv": 12, "d_ff": 192},
        "bart": {"d_model": 48} | {f"{side}_{part}": n for side in ("encoder", "decoder") for part, n in
                 (("layers", 3), ("attention_heads", 4), ("ffn_dim", 192))},
    }  # fmt: skip
    count = counted(theirs(model_type, "seq2seq", **shapes[model_type]))
    expected = count_model(ours(EncDecConfig, input_vocab_size=VOCAB))
    for part in ("encoder_scores", "attention_scores", "cross_scores", "head"):
        assert count.parts[part] == expected.parts[part], part
    assert count.flops_per_token == expected.flops_per_token
    assert count.n_params_matmul == expected.n_params_matmul


@pytest.mark.parametrize("case", CASES)
def test_counted_parameters_are_the_models(case: str):
    config = CASES[case][0]
    assert sum(weight.numel() for weight in build_model(config, 0).parameters()) == counted(config).n_params


def test_what_was_measured_is_counted_without_torch():
    config = describe(CASES["llama"][0])
    config = config.model_copy(update={"size": measure(config)})
    code = f"""
import sys
from lmexp.config.models.hf import HFConfig
from lmexp.cost.flops import count_model
print(count_model(HFConfig.model_validate_json({config.model_dump_json(by_alias=True)!r})).flops_per_token)
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and float(done.stdout) == count_model(config).flops_per_token
    with pytest.raises(ValueError, match="must be measured before it is counted"):
        count_model(config.model_copy(update={"size": None}))


@pytest.mark.parametrize("window", [1, 5, CONTEXT - 1, CONTEXT, 4 * CONTEXT])
def test_a_window_counts_as_in_our_own_family(window: int):
    config = theirs("mistral", "causal", **STACK, num_key_value_heads=2, intermediate_size=100, sliding_window=window)
    count, own = counted(config), count_model(ours(LlamaConfig, n_kv_heads=2, d_ff=100, window=window))
    assert count.parts["attention_scores"] == own.parts["attention_scores"]
    assert count.flops_per_token == own.flops_per_token
    assert count.n_params_matmul == own.n_params_matmul


def test_experts_behind_a_window_count_in_full():
    experts = {"num_local_experts": 4, "intermediate_size": 100, "num_key_value_heads": 2}
    count = counted(theirs("mixtral", "causal", **STACK, **experts, sliding_window=5))
    own = count_model(ours(MoEConfig, n_kv_heads=2, d_ff=100, n_experts=4, window=5))
    assert count.flops_per_token == own.flops_per_token
    assert (count.n_params_active, count.n_params_matmul) == (own.n_params_active, own.n_params_matmul)


HEADS = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 64}
GROUPS = {**HEADS, "num_key_value_heads": 4, "num_hidden_layers": 2, "head_dim": 12}
WINDOWS: dict[str, tuple[str, dict]] = {
    "mistral": ("causal", {**GROUPS, "sliding_window": 5}),
    "qwen3": ("causal", {**GROUPS, "sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen2": ("causal", {**HEADS, "num_hidden_layers": 2, "num_key_value_heads": 4, "sliding_window": 5}),  # unused
    "gemma2": ("causal", {**GROUPS, "sliding_window": 5}),
    "gemma3_text": ("causal", {**GROUPS, "sliding_window": 5, "layer_types": ["full_attention", "sliding_attention"]}),
    "gpt_oss": ("causal", {**GROUPS, "sliding_window": 5, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "llama4_text": ("causal", {**GROUPS, "attention_chunk_size": 8, "num_local_experts": 4, "intermediate_size_mlp": 64,
                               "moe_layers": [0], "layer_types": ["full_attention", "chunked_attention"]}),
    "gpt_neo": ("causal", {"hidden_size": 48, "num_heads": 4, "num_layers": 2, "window_size": 5,
                           "attention_types": [[["global", "local"], 1]]}),
    "modernbert": ("masked", {**HEADS, "num_hidden_layers": 2, "local_attention": 6}),
}  # fmt: skip


@pytest.mark.parametrize("model_type", WINDOWS)
def test_spans_are_how_far_the_librarys_layers_look(model_type: str):
    """A layer sees what the gradient of one of its positions reaches, at the position that sees most."""
    from transformers import AutoModel

    predicts, shape = WINDOWS[model_type]
    config = theirs(model_type, predicts, **shape)
    body = AutoModel.from_config(library_config(config)).eval()
    reach = []
    layers = next(module for module in body.modules() if isinstance(module, nn.ModuleList) and len(module) == 2)
    for layer in layers:  # alone: what comes in is cut off from what is before
        layer.register_forward_pre_hook(lambda module, given: (given[0].detach().requires_grad_(), *given[1:]))
        layer.register_forward_hook(lambda module, given, result: reach.append((given[0], result)))
    body(input_ids=torch.arange(CONTEXT)[None])
    spans = []
    for states, result in reach:
        result = result if isinstance(result, torch.Tensor) else result[0]
        gradients = [torch.autograd.grad(position.pow(3).sum(), states, retain_graph=True)[0] for position in result[0]]
        spans.append(max(int((gradient[0] != 0).any(-1).sum()) for gradient in gradients))
    assert attention_spans(config, body.config) == spans
    assert measure(config).parts["attention_scores"] == 12 * 48 * sum(spans)


def test_shared_layers_count_as_often_as_they_multiply():
    stack = {**STACK, "intermediate_size": 192, "embedding_size": 16, "max_position_embeddings": CONTEXT}
    count = counted(theirs("albert", "masked", **stack))
    bert = count_model(ours(BertConfig))
    layers = 3 * (4 * 48 * 48 + 2 * 48 * 192)
    assert count.n_params_matmul == layers + 16 * 48 + 48 * 16 + VOCAB * 16
    assert count.parts["attention_scores"] == bert.parts["attention_scores"]
    assert count.parts["layers"] == 6 * (layers + 16 * 48)
    assert count.n_params < layers  # for they are there once


@pytest.mark.parametrize("model_type", ["albert", *CASES])
def test_flops_are_six_for_each_parameter_that_multiplies_and_the_scores(model_type: str):
    config = CASES[model_type][0] if model_type in CASES else theirs("albert", "masked", **STACK, intermediate_size=192)
    count = counted(config)
    assert count.flops_per_token == 6 * count.n_params_matmul + count.parts["attention_scores"]


def test_convolutions_are_refused_for_torch_counts_them_wrong():
    with pytest.raises(UserError, match="mamba has convolutions, whose backward pass torch does not count right"):
        counted(theirs("mamba", "causal", hidden_size=48, num_hidden_layers=2))


def test_sizes_are_filled_in_and_a_fresh_vocabulary_is_left_to_the_tokenizer():
    config = theirs("gpt2", "causal", n_layer=3, n_embd=48, n_head=4, n_positions=64)
    found = describe(config.model_copy(update={"vocab_size": None}))
    assert (found.name, found.n_layers, found.d_model, found.n_heads, found.vocab_size) == ("gpt2", 3, 48, 4, None)
    assert found.config == config.config
    own = theirs("gpt2", "causal", vocab_size=300).model_copy(update={"vocab_size": None})
    assert describe(own).vocab_size == 300
    assert describe(config.model_copy(update={"name": "mine"})).name == "mine"


def composed(*words: str) -> ModelSection:
    return Composer(paths.search_roots(), words=list(words)).config({}).model


def test_the_shipped_configs_need_only_what_they_ask_for():
    fresh = composed("model=hf_config", "model.model_type=llama", "+model.config.num_hidden_layers=3")
    assert isinstance(fresh, HFConfig)
    assert (fresh.predicts, describe(fresh).name, describe(fresh).n_layers) == ("causal", "llama", 3)
    for name, key in (("hf_config", "model_type"), ("hf_pretrained", "pretrained")):
        with pytest.raises(UserError, match=f"model.{key} must be given"):
            composed(f"model={name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    made = GPT2Config(vocab_size=VOCAB, n_layer=1, n_embd=8, n_head=2, n_positions=CONTEXT)
    GPT2LMHeadModel(made).save_pretrained(tmp_path / "made")
    return tmp_path / "made"


def pretrained(name: Path | str, **changes: object) -> HFConfig:
    values = {"name": "hf", "pretrained": str(name), "predicts": "causal", "context": CONTEXT, **changes}
    return HFConfig.model_validate({"_target_": "lmexp.models.hf.HFModel", **values})


def test_a_folder_tells_its_sizes_its_name_and_all_of_its_config(folder: Path):
    found = describe(pretrained(f"{folder}/"))
    assert (found.name, found.model_type, found.vocab_size) == ("made", "gpt2", VOCAB)
    assert (found.n_layers, found.d_model, found.n_heads) == (1, 8, 2)
    assert found.config["n_embd"] == 8 and "transformers_version" not in found.config
    assert describe(found) == found
    changed = describe(pretrained(folder, config={"attn_pdrop": 0.0}))
    assert changed.config == found.config | {"attn_pdrop": 0.0}


def test_the_fingerprint_of_a_folder_follows_its_content_and_not_its_place(folder: Path):
    def fingerprints(**changes: object) -> str:
        return fingerprint(pretrained(folder, **changes))

    before, trusted = fingerprints(), fingerprints(trust_remote_code=True)
    moved = folder.rename(folder.with_name("moved"))
    assert fingerprint(pretrained(moved)) == before == trusted
    moved.rename(folder)
    (folder / "README.md").write_text("words")
    (folder / "code.py").write_text("pass")
    assert fingerprints() == before != fingerprints(trust_remote_code=True)
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    other = fingerprints()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert len({before, other, fingerprints()}) == 3


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "", "cannot reach http://127.0.0.1:9 for the model 'a/b'"),
        ({"HF_HUB_OFFLINE": "1"}, "", "HF_HUB_OFFLINE is set, so the model 'a/b' needs model.revision=<commit>"),
        ({"HF_HUB_OFFLINE": "1"}, f", revision={COMMIT!r}", COMMIT),
    ],
)
def test_without_a_network_the_answer_is_short_and_quick(environment: dict, changes: str, message: str):
    code = f"""
from lmexp.config.models.hf import HFConfig
from lmexp.cost.hf import fingerprint
from lmexp.errors import UserError
config = HFConfig(target="lmexp.models.hf.HFModel", name="t", pretrained="a/b", predicts="causal", context=8{changes})
try:
    print(fingerprint(config))
except UserError as error:
    print(error)
"""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith(message) and done.stdout.count("\n") == 1 and done.stderr == ""
    assert time.monotonic() - start < 30


def test_a_model_that_is_not_in_the_cache_is_one_message_offline(tmp_path: Path):
    code = """
from lmexp.config.models.hf import HFConfig
from lmexp.errors import UserError
from lmexp.models.build import build_model
config = HFConfig(target="lmexp.models.hf.HFModel", name="t", pretrained="a/b", predicts="causal", context=8)
try:
    build_model(config, 0)
except UserError as error:
    print(error)
"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | offline, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("cannot read the config of a/b: ") and done.stdout.count("\n") == 1


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path):
    with pytest.raises(UserError, match="no such folder"):
        fingerprint(pretrained(tmp_path / "nothing"))
