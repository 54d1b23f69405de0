"""Steps at fixed addresses: the same logits as the model's own steps."""

from collections.abc import Callable

import pytest
import torch

from lmexp.config.schema import RunConfig
from lmexp.models.build import build_model
from lmexp.models.gpt import GPT
from lmexp.models.replay import FixedStep, _may_be_recorded, decoding_step

Configure = Callable[..., RunConfig]
MODELS = {
    "gpt": ["model=gpt_nano"],
    "llama": ["model=llama_nano"],
    "llama with grouped heads": ["model=llama_nano", "model.n_kv_heads=1", "model.qk_norm=true"],
    "llama with a window": ["model=llama_nano", "model.window=5"],
}


@pytest.mark.parametrize("words", MODELS.values(), ids=MODELS)
def test_a_step_at_a_fixed_address_gives_the_models_own_logits(words: list[str], config: Configure):
    model = build_model(config(*words, "model.context=32", "model.vocab_size=61").model, 0).eval()
    tokens = torch.randint(61, (3, 20), generator=torch.Generator().manual_seed(0))
    own, fixed = model.new_cache(3, 20), model.new_cache(3, 20)  # type: ignore[operator]
    for layer in fixed:
        layer.keys.fill_(torch.nan)  # whatever lies in new memory
        layer.values.fill_(torch.nan)
    with torch.inference_mode():
        for cache in (own, fixed):
            model(tokens[:, :7], cache)
        step = FixedStep(model, fixed)  # type: ignore[arg-type]
        for place in range(7, 20):
            expected = model(tokens[:, place : place + 1], own, last_only=True)
            torch.testing.assert_close(step(tokens[:, place : place + 1]), expected, rtol=1e-5, atol=1e-5)
            assert [layer.length for layer in fixed] == [place + 1] * len(fixed)
        with pytest.raises(ValueError, match="the cache's 20 tokens are used up"):
            step(tokens[:, :1])


def test_on_a_cpu_the_model_makes_its_own_steps(config: Configure):
    model = build_model(config("model.context=32", "model.vocab_size=61").model, 0).eval()
    cache = model.new_cache(1, 20)  # type: ignore[operator]
    tokens = torch.randint(61, (1, 8))
    with torch.inference_mode():
        model(tokens[:, :7], cache)
        decoding_step(model, cache)(tokens[:, 7:])  # type: ignore[arg-type]
    assert cache[0].length == 8 and cache[0].position is None


class Own(GPT):
    """A model of the user's that is derived from GPT, and may compute positions on the host."""


def test_a_model_that_is_derived_from_gpt_is_recorded_only_if_it_says_so(config: Configure):
    section = config("model.context=32", "model.vocab_size=61").model
    assert _may_be_recorded(GPT(section))  # type: ignore[arg-type]
    own = Own(section)  # type: ignore[arg-type]
    assert not _may_be_recorded(own)
    Own.has_fixed_steps = True
    assert _may_be_recorded(own)
