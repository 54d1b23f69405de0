"""Products of bf16 matrices on a CPU for which torch has no fast kernels: in float32, a piece at a time, then rounded.

oneDNN multiplies bf16 with AVX-512, AMX or Arm's bf16 instructions. On other CPUs, such as AMD's before Zen 4 and most
of Intel's in laptops, torch multiplies number by number, which takes many times as long as in float32. A product of two
bf16 numbers is exact in float32, and bf16 instructions add in float32 too. So the results are those of a CPU with such
instructions, but for the order of the sums. torch's fused attention is computed in float32 from the first product to
the last, and then rounded. So is a layer of an LSTM.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.library import Library

PIECE = 2**21
"""Numbers of each matrix that are in float32 at a time, 8 MiB, so that this takes little memory."""
MIN_SIDE = 256
"""Rows and columns of a piece, at least: with fewer, converting would take longer than multiplying."""
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
"""The operations that the matmuls of all layers end in. Compiled models call their variants with `out`."""
ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
LSTM = "mkldnn_rnn_layer"
"""oneDNN's layer of an LSTM, which under autocast raises a RuntimeError where oneDNN does not know bf16."""

Kernel = Callable[..., Any]

_library: Library | None = None
"""Holds the replaced kernels; torch's own are back when it is freed."""


def has_slow_bf16() -> bool:
    """Whether torch has no fast kernels for bf16 on this CPU."""
    return torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def are_replaced() -> bool:
    """Whether this process has the kernels of this module."""
    return _library is not None


def replace_kernels(wanted: bool = True) -> None:
    """Have this process multiply bf16 on the CPU by the kernels of this module, or by torch's own again.

    Nothing is replaced where torch cannot hand over its own kernels, which these call (torch.library.get_kernel).
    """
    global _library
    if not wanted or not hasattr(torch.library, "get_kernel"):
        _library = None
    elif _library is None:
        _library = _kernels()


@contextmanager
def fast_bf16() -> Iterator[None]:
    """Have this process multiply bf16 fast within the block, also on a CPU for which torch has no fast kernels."""
    before = are_replaced()
    replace_kernels(before or has_slow_bf16())
    try:
        yield
    finally:
        replace_kernels(before)


def _kernels() -> Library:
    library = Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s).*Overriding a previously registered kernel")
        for name in PRODUCTS:
            by_torch = _kernel_of_torch(name)
            product = partial(_product, by_torch, _batches if "bmm" in name else _blocks)
            _replace(library, name, product, by_torch)
            _replace(library, f"{name}.out", product, _kernel_of_torch(f"{name}.out"))
        for name, in_float32 in (
            (ATTENTION, _attention),
            (f"{ATTENTION}_backward", _attention_backward),
            (LSTM, _lstm),
            (f"{LSTM}_backward", _lstm),
        ):
            by_torch = _kernel_of_torch(name)
            _replace(library, name, partial(in_float32, by_torch), by_torch)
    return library


def _kernel_of_torch(name: str) -> Kernel:
    kernel: Kernel = torch.library.get_kernel(f"aten::{name}", "CPU").call_boxed
    return kernel


def _replace(library: Library, name: str, of_bf16: Kernel, of_others: Kernel) -> None:
    def kernel(keys: Any, first: Tensor, *others: Any, **options: Any) -> Any:
        return (of_bf16 if first.dtype == torch.bfloat16 else of_others)(keys, first, *others, **options)

    library.impl(name, kernel, "CPU", with_keyset=True)


def _product(
    by_torch: Kernel,
    pieces: Callable[[Tensor, Tensor], Iterator[tuple[slice, ...]]],
    keys: Any,
    *args: Tensor,
    out: Tensor | None = None,
    **factors: float,
) -> Tensor:
    """Multiply (..., M, K) by (..., K, N), the last two of `args`; what stands before them is added to the product."""
    *added, left, right = args
    shape = (*left.shape[:-1], right.shape[-1])
    out = left.new_empty(shape) if out is None else out.resize_(shape)
    for place in pieces(left, right):
        *batch, rows, columns = place
        terms = (term.expand(shape)[place].float() for term in added)
        sides = left[*batch, rows].float(), right[*batch, :, columns].float()
        out[place] = by_torch(keys, *terms, *sides, **factors)
    return out


def _blocks(left: Tensor, right: Tensor) -> Iterator[tuple[slice, ...]]:
    """Yield the rows and columns of each piece of a product."""
    (rows, inner), columns = left.shape, right.shape[1]
    width = max(MIN_SIDE, PIECE // max(1, inner))
    height = max(MIN_SIDE, PIECE // max(1, inner, min(width, columns)))
    for start in range(0, columns, width):
        for top in range(0, rows, height):
            yield slice(top, top + height), slice(start, start + width)


def _batches(left: Tensor, right: Tensor) -> Iterator[tuple[slice, ...]]:
    """Yield which matrices of a batch are multiplied at a time, with all their rows and columns."""
    (count, rows, inner), columns = left.shape, right.shape[2]
    at_once = max(1, PIECE // max(1, rows * inner, inner * columns, rows * columns))
    for start in range(0, count, at_once):
        yield slice(start, start + at_once), slice(None), slice(None)


def _attention(
    by_torch: Kernel, keys: Any, query: Tensor, key: Tensor, value: Tensor, *how: Any, **options: Any
) -> tuple[Tensor, Tensor]:
    """Mix values: (B, H, T, D) and twice (B, H, S, D) -> (B, H, T, D), and the logarithm of each softmax's sum."""
    mixed, sums = _heads_last(query), _heads_last(query[..., 0].float())
    for some in _sequences(query, key):
        wide = (heads[some].float() for heads in (query, key, value))
        mixed[some], sums[some] = by_torch(keys, *wide, *how, **_options_of(some, **options))
    return mixed, sums


def _attention_backward(by_torch: Kernel, keys: Any, *args: Any, **options: Any) -> tuple[Tensor, ...]:
    """Return the gradients of queries, keys and values: (B, H, T, D) and twice (B, H, S, D).

    `args` begin with the gradient of what `_attention` returned, queries, keys, values, and both of its results.
    """
    (*narrow, sums), how = args[:6], args[6:]
    _, query, key, value, _ = narrow
    gradients = tuple(_heads_last(heads) for heads in (query, key, value))
    for some in _sequences(query, key):
        wide = (heads[some].float() for heads in narrow)
        parts = by_torch(keys, *wide, sums[some], *how, **_options_of(some, **options))
        for whole, part in zip(gradients, parts, strict=True):
            whole[some] = part
    return gradients


def _lstm(by_torch: Kernel, keys: Any, *args: Any) -> tuple[Tensor, ...]:
    """Return what a layer of an LSTM, or its backward pass, returns. The workspace is bytes, and stays as it is."""
    wide = (arg.float() if isinstance(arg, Tensor) and arg.dtype == torch.bfloat16 else arg for arg in args)
    results = by_torch(keys, *wide)
    return tuple(each.bfloat16() if each.dtype == torch.float32 else each for each in results)


def _heads_last(like: Tensor) -> Tensor:
    """Return an empty tensor (B, H, T, ...) in the order of what torch's own kernel returns: (B, T, H, ...)."""
    batch, heads, length, *rest = like.shape
    return like.new_empty(batch, length, heads, *rest).transpose(1, 2)


def _sequences(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Yield which sequences of a batch are computed at a time."""
    at_once = max(1, PIECE // max(1, query[0].numel(), key[0].numel()))
    for start in range(0, len(query), at_once):
        yield slice(start, start + at_once)


def _options_of(some: slice, attn_mask: Tensor | None = None, scale: float | None = None) -> dict[str, Any]:
    """Return the options of attention for some sequences. A mask is (T, S) or (1 or B, 1 or H, T, S)."""
    if attn_mask is not None:
        attn_mask = attn_mask[some] if attn_mask.dim() == 4 and len(attn_mask) > 1 else attn_mask
        attn_mask = attn_mask.float() if attn_mask.is_floating_point() else attn_mask
    return {"attn_mask": attn_mask, "scale": scale}
