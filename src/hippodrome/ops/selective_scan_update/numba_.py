"""One token of the selective scan on the CPU: an op around the Numba kernel."""

import torch
from torch import Tensor

from hippodrome.ops._light import blank, dense, light_op, rows, unfit_for_kernel, written
from hippodrome.ops._threads import run_bytes

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes float32, bfloat16 and float64 on the CPU, where no gradient is wanted."""
    return unfit_for_kernel(*tensors)


def _fake(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
) -> Tensor:
    return u.new_empty(u.shape)


@light_op("selective_scan_update", _fake, mutates=("state",))
def _update(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
) -> Tensor:
    from hippodrome.ops.selective_scan_update import _numba_kernel as kernel

    b, d, n = state.shape
    y = blank(u)
    if not y.numel():
        return y
    u, dt, B, C = rows(u), rows(dt), rows(B), rows(C)
    z = None if z is None else rows(z)
    A, h = dense(A), dense(state)
    D, dt_bias = (None if x is None else dense(x) for x in (D, dt_bias))
    grouped = B.dim() == 3
    g = B.shape[1] if grouped else 1
    strides = (
        u.stride(0),
        dt.stride(0),
        0 if z is None else z.stride(0),
        B.stride(0),
        B.stride(1) if grouped else 0,
        C.stride(0),
        C.stride(1) if grouped else 0,
    )
    addresses = (
        u.data_ptr(),
        dt.data_ptr(),
        B.data_ptr(),
        C.data_ptr(),
        0 if z is None else z.data_ptr(),
        A.data_ptr(),
        0 if D is None else D.data_ptr(),
        0 if dt_bias is None else dt_bias.data_ptr(),
        h.data_ptr(),
        y.data_ptr(),
    )
    samples = kernel.SAMPLES
    arguments = (
        (d, n, g),
        strides,
        softplus,
        addresses,
        samples[u.dtype],
        samples[dt.dtype],
        samples[state.dtype],
    )
    tiles = b * g * -(-(d // g) // kernel.LANES)
    run_bytes(kernel.update, tiles, h.nbytes, *arguments)
    written(state, h)
    return y


def selective_scan_update(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
    softplus: bool,
) -> Tensor:
    """The output; arguments as at the door."""
    kind, wide = u.dtype, state.dtype
    if torch.float64 in (kind, dt.dtype, wide):
        u, dt = u.to(wide), dt.to(wide)
    B, C = (m if m.dtype == u.dtype else m.to(u.dtype) for m in (B, C))
    z = z if z is None or z.dtype == u.dtype else z.to(u.dtype)
    A = A if A.dtype == wide else A.to(wide)
    D, dt_bias = (x if x is None or x.dtype == wide else x.to(wide) for x in (D, dt_bias))
    y: Tensor = _update(u, dt, A, B, C, D, z, dt_bias, state, softplus)
    return y if y.dtype == kind else y.to(kind)
