"""Tensors as the flat arrays that Numba kernels take, read where they lie."""

from typing import Any

import torch
from torch import Tensor


def memory(x: Tensor) -> Any:
    """A dense one-dimensional tensor as an array; bfloat16, which Numba lacks, as its bits in uint16."""
    x = x.detach()
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def flat(x: Tensor) -> tuple[Any, tuple[int, ...]]:
    """The memory under a tensor as a flat array, and the strides of all axes but the last, which is dense.

    So a slice of a wider tensor is read where it lies, and the kernels see one kind of array only. A tensor
    whose last axis is not dense is copied; an empty one has strides of zero.
    """
    if not x.numel():
        return memory(x.detach().reshape(-1)), (0,) * max(x.dim() - 1, 2)
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        x = x.contiguous()
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return memory(torch.as_strided(x.detach(), (span,), (1,))), x.stride()[:-1]


def dense(x: Tensor) -> Any:
    """A tensor as a flat array in order, copied where it does not lie so."""
    return memory(x.detach().contiguous().view(-1))
