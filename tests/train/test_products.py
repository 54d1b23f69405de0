"""float32 products: rounded to tf32 where the preset says so, and nowhere else."""

from collections.abc import Callable, Iterator

import pytest
import torch

from lmexp.runs.directory import RunDir
from lmexp.train.products import products, set_products
from lmexp.train.worker import main

EXACT, ROUNDED = ("highest", False), ("high", True)


def flags() -> tuple[str, bool]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def torchs_own() -> Iterator[None]:
    """cuDNN rounds by default, which an LSTM in fp32 must not take over."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize("compute", ["fp32", "bf16", "fp16", "fp8", "tf32"])
def test_every_flag_follows_the_preset(compute: str):
    set_products(compute)
    assert flags() == (ROUNDED if compute == "tf32" else EXACT)


def test_a_block_leaves_the_flags_as_they_were():
    before = flags()
    with pytest.raises(RuntimeError), products("tf32"):
        assert flags() == ROUNDED
        raise RuntimeError
    assert flags() == before
    with products("fp32"):
        assert flags() == EXACT
    assert flags() == before


def test_a_run_in_fp32_is_exact_in_cudnn_too(make_run: Callable[..., RunDir]):
    assert main(make_run().path) == 0
    assert flags() == EXACT
