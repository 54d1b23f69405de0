"""Documents that share a sequence and are kept apart: each is read as if it stood alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.config.models.base import ModelSection
from lmexp.models.build import build_model
from tests.models.test_gpt import tiny as tiny_gpt
from tests.models.test_llama import tiny as tiny_llama
from tests.models.test_moe import tiny as tiny_moe

SECTIONS = {
    "gpt": tiny_gpt(),
    "llama": tiny_llama(),
    "a window and shared keys": tiny_llama(window=3, n_heads=4, n_kv_heads=2, d_model=32),
    "moe": tiny_moe(),
}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_a_document_is_read_as_if_it_stood_alone(section: ModelSection, lengths: list[int], seed: int):
    lengths = [n for i, n in enumerate(lengths) if sum(lengths[: i + 1]) <= section.context] or [section.context]
    model = build_model(section, 0).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        tokens = torch.randint(0, 61, (2, sum(lengths)), generator=torch.Generator().manual_seed(seed))
        documents = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).expand(2, -1)
        alone = torch.cat([model(part) for part in tokens.split(lengths, dim=1)], dim=1)
        torch.testing.assert_close(model(tokens, documents=documents), alone, atol=1e-4, rtol=1e-4)
        if len(lengths) > 1 and section.family == "gpt":
            assert not torch.allclose(model(tokens), alone, atol=1e-3), "without the mask it looks further back"
