"""The norm of a few rows where no gradient is wanted: what decoding one token calls twice in every layer.

Not a backend: a shorter way into the CPU kernels' arithmetic for calls that take less time than their door.
"""

import torch
from torch import Tensor

from hippodrome.ops._light import DTYPES, blank, dense, light_op, unfit
from hippodrome.ops._threads import run_bytes

SMALL = 1 << 16
"""Numbers up to which the way in is a part of the time worth saving."""


def fits(x: Tensor, weight: Tensor, z: Tensor | None, groups: int) -> bool:
    """Whether the short way takes this call; all that does not fit, wrong shapes too, goes the long way."""
    if torch.compiler.is_compiling() or not x.is_cpu or not 0 < x.numel() <= SMALL or x.dtype not in DTYPES:
        return False
    d = x.shape[-1]
    if weight.shape != (d,) or groups < 1 or d % groups or not weight.is_cpu or weight.dtype not in DTYPES:
        return False
    if z is not None and (z.shape != x.shape or z.dtype != x.dtype or not z.is_cpu):
        return False
    if x.dtype == torch.float64 and weight.dtype != torch.float64:
        return False
    return unfit(x, weight, z) is None


def _fake(x: Tensor, weight: Tensor, z: Tensor | None, eps: float, groups: int) -> Tensor:
    return x.new_empty(x.shape)


@light_op("rms_norm.few", _fake)
def _few(x: Tensor, weight: Tensor, z: Tensor | None, eps: float, groups: int) -> Tensor:
    from hippodrome.ops.rms_norm import _few_kernel as kernel

    y = blank(x)
    x, z, weight = _rows(x), None if z is None else _rows(z), dense(weight)
    run_bytes(
        kernel.norm,
        x.shape[0] * groups,
        x.nbytes,
        (*x.shape, groups, x.stride(0), 0 if z is None else z.stride(0)),
        eps,
        (x.data_ptr(), 0 if z is None else z.data_ptr(), y.data_ptr(), weight.data_ptr()),
        kernel.SAMPLES[x.dtype],
        kernel.SAMPLES[weight.dtype],
    )
    return y


def _rows(x: Tensor) -> Tensor:
    """As (rows, d) with dense rows."""
    if x.dim() == 2 and x.stride(1) == 1:
        return x
    return x.reshape(-1, x.shape[-1]).contiguous()


def rms_norm(x: Tensor, weight: Tensor, z: Tensor | None, eps: float, groups: int) -> Tensor:
    """The norm; arguments as at the door."""
    if x.dim() == 2:
        rows: Tensor = _few(x, weight, z, eps, groups)
        return rows
    d = x.shape[-1]
    gate = z if z is None else z.reshape(-1, d)
    y: Tensor = _few(x.reshape(-1, d), weight, gate, eps, groups)
    return y.view(x.shape)
