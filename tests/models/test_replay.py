"""Steps at fixed addresses, compiled or not: the same logits as the model's own steps."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from lmexp.config.schema import RunConfig
from lmexp.models.build import build_model
from lmexp.models.gpt import GPT
from lmexp.models.replay import FixedStep, Pass, compile_step, decoding_step, has_fixed_steps, pass_of

Configure = Callable[..., RunConfig]
MODELS = {
    "gpt": ["model=gpt_nano"],
    "llama": ["model=llama_nano"],
    "llama with grouped heads": ["model=llama_nano", "model.n_kv_heads=1", "model.qk_norm=true"],
    "llama with a window": ["model=llama_nano", "model.window=5"],
}


def small_model(config: Configure, *words: str) -> Any:
    return build_model(config(*words, "model.context=32", "model.vocab_size=61").model, 0).eval()


def check_steps(model: Any, forward: Pass, prompt: int) -> None:
    """Continue three texts to 20 tokens, by the model's own steps and by those of `forward`, and compare the logits."""
    tokens = torch.randint(61, (3, 20), generator=torch.Generator().manual_seed(0))
    own, fixed = model.new_cache(3, 20), model.new_cache(3, 20)
    for layer in fixed:
        layer.keys.fill_(torch.nan)  # whatever lies in new memory
        layer.values.fill_(torch.nan)
    with torch.inference_mode():
        for cache in (own, fixed):
            model(tokens[:, :prompt], cache)
        step = FixedStep(fixed, forward)
        for place in range(prompt, 20):
            expected = model(tokens[:, place : place + 1], own, last_only=True)
            torch.testing.assert_close(step(tokens[:, place : place + 1]), expected, rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match="the cache's 20 tokens are used up"):
            step(tokens[:, :1])


@pytest.mark.parametrize("words", MODELS.values(), ids=MODELS)
def test_a_step_at_a_fixed_address_gives_the_models_own_logits(words: list[str], config: Configure):
    model = small_model(config, *words)
    check_steps(model, pass_of(model), prompt=7)


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt", "llama with grouped heads"])
def test_a_compiled_step_gives_the_models_own_logits_and_is_compiled_once(name: str, config: Configure):
    model = small_model(config, *MODELS[name])
    compiled, before = compile_step(model), counters["stats"]["unique_graphs"]
    for prompt in (7, 7, 9):  # a place in the cache is no part of what is compiled
        check_steps(model, compiled, prompt)
    assert counters["stats"]["unique_graphs"] - before == 1


def test_on_a_cpu_the_model_makes_its_own_steps(config: Configure):
    model = small_model(config)
    cache = model.new_cache(1, 20)
    tokens = torch.randint(61, (1, 8))
    with torch.inference_mode():
        model(tokens[:, :7], cache)
        decoding_step(model, cache)(tokens[:, 7:])
    assert cache[0].length == 8


class Own(GPT):
    """A model of the user's that is derived from GPT, and may compute positions on the host."""


def test_a_model_that_is_derived_from_gpt_has_fixed_steps_only_if_it_says_so():
    assert has_fixed_steps(GPT)
    assert not has_fixed_steps(Own)
    Own.has_fixed_steps = True
    assert has_fixed_steps(Own)
