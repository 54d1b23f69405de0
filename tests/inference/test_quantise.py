"""Weights in fewer bits: what becomes of the scores, what is shared, and what it takes in memory."""

import logging
import subprocess
import sys

import pytest
import torch

from lmexp.config.models.gpt import GPTConfig
from lmexp.errors import UserError
from lmexp.inference.measure import weights_bytes
from lmexp.inference.quantise import convert
from lmexp.models.build import build_model
from lmexp.models.gpt import GPT

pytest.importorskip("torchao")


def config_of(**changes: object) -> GPTConfig:
    values = {"name": "t", "n_layers": 2, "d_model": 64, "n_heads": 2, "context": 16, "vocab_size": 61}
    return GPTConfig.model_validate({"_target_": "lmexp.models.gpt.GPT", **values, **changes})


def model_of(precision: str | None = None, compute: str = "fp32", **changes: object) -> GPT:
    model = build_model(config_of(**changes), seed=0).eval()
    if precision is not None:
        convert(model, precision, compute)
    assert isinstance(model, GPT)
    return model


def logits_of(model: GPT) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(48).view(3, 16)).float()


def squared_error(precision: str, **changes: object) -> float:
    """Mean squared error of the logits, as a share of their variance."""
    exact = logits_of(model_of(**changes))
    return float((logits_of(model_of(precision, **changes)) - exact).square().mean() / exact.var())


@pytest.mark.parametrize("tie", [True, False])
def test_the_error_of_int8_is_that_of_its_rounding_and_int4s_is_coarser(tie: bool):
    # Rows of 64 normal weights have a largest of about 2.5 standard deviations. Rounding to steps of 1/127 of
    # it leaves an error of 2.5 / 127 / sqrt(12) = 0.6 % in each product, so 3e-5 squared; some ten matrices in
    # sequence make it a few 1e-4 at most. int4 has 127 / 7.5 = 17 times as wide steps: 289 times the squared error,
    # lessened by groups whose largest weight is smaller than the row's, but not by ten.
    int8, int4 = squared_error("int8", tie_embeddings=tie), squared_error("int4", tie_embeddings=tie)
    assert 0 < int8 < 1e-3
    assert 29 * int8 < int4 < 289 * int8


def test_a_tied_head_stays_one_table_with_the_embedding():
    model = model_of("int8")
    assert model.head.weight is model.token_embedding.weight and model.head.weight.dtype == torch.float32
    assert type(model.head.weight.data) is torch.Tensor


def test_a_head_of_its_own_is_converted_and_the_embedding_is_not():
    model = model_of("int8", tie_embeddings=False)
    assert type(model.head.weight.data).__name__ == "Int8Tensor"
    assert type(model.token_embedding.weight.data) is torch.Tensor


PARAMETERS = {  # of a layer's four matrices: (rows, columns)
    "qkv": (192, 64), "out": (64, 64), "up": (256, 64), "down": (64, 256),
}  # fmt: skip
MATRICES = 2 * sum(rows * columns for rows, columns in PARAMETERS.values())
ROWS = 2 * sum(rows for rows, _ in PARAMETERS.values())


def test_weights_take_the_bytes_of_what_is_stored():
    full = weights_bytes(model_of())
    assert full == 4 * sum(weight.numel() for weight in model_of().parameters())
    # A byte a weight, and for each row or each group of 32 a float32 scale and perhaps a byte of zero point.
    int8 = full - weights_bytes(model_of("int8"))
    assert 3 * MATRICES - 5 * ROWS <= int8 <= 3 * MATRICES - 4 * ROWS
    int4 = full - weights_bytes(model_of("int4"))
    assert 3 * MATRICES - 5 * MATRICES / 32 <= int4 <= 3 * MATRICES - 4 * MATRICES / 32
    assert weights_bytes(model_of("int8")) < 0.45 * full  # the table, in floats, is a fifth of this model


def test_a_tied_table_is_counted_once():
    assert weights_bytes(model_of(tie_embeddings=False)) - weights_bytes(model_of()) == 4 * 61 * 64


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_casting_halves_the_weights_and_keeps_the_tie(precision: str, dtype: torch.dtype):
    model = model_of(precision)
    assert model.head.weight is model.token_embedding.weight and model.norm.weight.dtype == dtype
    assert weights_bytes(model) * 2 == weights_bytes(model_of())


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_integer_weights_compute_in_what_the_run_computed_in(precision: str):
    model = model_of(precision, compute="bf16")
    assert model(torch.zeros(1, 1, dtype=torch.int64)).dtype == torch.bfloat16


@pytest.mark.parametrize("width", [36, 44, 6])  # groups of 4 would be all scales
def test_rows_that_no_group_divides_have_one_scale(width: int):
    model = model_of("int4", d_model=width, n_heads=2)
    assert logits_of(model).isfinite().all()
    assert model.blocks[0].attention.qkv.weight.scale.shape == (3 * width, 1)


def test_without_torchao_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(UserError, match=r"int8 needs torchao: pip install 'lmexp\[quant\]'"):
        model_of("int8")


CONVERT = """
from torch import nn
from lmexp.inference.quantise import convert
print([type(convert(nn.Linear(64, 64), name, "fp32").weight.data).__name__ for name in ("int8", "int4")])
"""


@pytest.mark.slow
def test_converting_prints_nothing_of_missing_gpu_libraries():
    ended = subprocess.run([sys.executable, "-c", CONVERT], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert ended.stdout == "['Int8Tensor', 'IntxUnpackedToInt8Tensor']\n"


def test_other_warnings_of_torchao_are_heard_afterwards(caplog: pytest.LogCaptureFixture):
    model_of("int8")
    logging.getLogger("torchao").warning("Failed to load what matters")
    assert caplog.messages == ["Failed to load what matters"]
