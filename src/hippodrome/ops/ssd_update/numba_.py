"""One token of SSD on the CPU: an op around the Numba kernel."""

import torch
from torch import Tensor

from hippodrome.ops._light import blank, dense, light_op, rows, unfit_for_kernel, written
from hippodrome.ops._threads import run_bytes

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes float32, bfloat16 and float64 on the CPU, where no gradient is wanted."""
    return unfit_for_kernel(*tensors)


def _fake(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
    low: float,
    high: float,
) -> Tensor:
    return x.new_empty(x.shape)


@light_op("ssd_update", _fake, mutates=("state",))
def _update(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
    low: float,
    high: float,
) -> Tensor:
    from hippodrome.ops.ssd_update import _numba_kernel as kernel

    b, h, p, n = state.shape
    y = blank(x)
    if not y.numel():
        return y
    x, B, C, dt = rows(x), rows(B), rows(C), rows(dt)
    A, S = dense(A), dense(state)
    D = None if D is None else dense(D)
    dt_bias = None if dt_bias is None else dense(dt_bias)
    addresses = (
        x.data_ptr(),
        B.data_ptr(),
        C.data_ptr(),
        dt.data_ptr(),
        A.data_ptr(),
        0 if D is None else D.data_ptr(),
        0 if dt_bias is None else dt_bias.data_ptr(),
        S.data_ptr(),
        y.data_ptr(),
    )
    samples = kernel.SAMPLES
    arguments = (
        (h, p, n, B.shape[1]),
        (*x.stride()[:2], dt.stride(0), *B.stride()[:2], *C.stride()[:2]),
        softplus,
        low,
        high,
        addresses,
        samples[x.dtype],
        samples[dt.dtype],
        samples[state.dtype],
    )
    run_bytes(kernel.update, b * h, S.nbytes, *arguments)
    written(state, S)
    return y


def ssd_update(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
    low: float,
    high: float,
) -> Tensor:
    """The output; arguments as at the door."""
    kind, wide = x.dtype, state.dtype
    if torch.float64 in (kind, dt.dtype, wide):
        x, dt = x.to(wide), dt.to(wide)
    # One by one: a generator costs as much as what it asks.
    B = B if B.dtype == x.dtype else B.to(x.dtype)
    C = C if C.dtype == x.dtype else C.to(x.dtype)
    A = A if A.dtype == wide else A.to(wide)
    D = D if D is None or D.dtype == wide else D.to(wide)
    dt_bias = dt_bias if dt_bias is None or dt_bias.dtype == wide else dt_bias.to(wide)
    y: Tensor = _update(x, dt, A, B, C, D, dt_bias, state, softplus, low, high)
    return y if y.dtype == kind else y.to(kind)
