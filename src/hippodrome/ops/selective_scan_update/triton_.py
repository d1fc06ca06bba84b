"""One token of the selective scan on a GPU: an op around the Triton kernel, fit for CUDA graphs."""

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._light import agree, dense, light_op, unfit, written
from hippodrome.ops.selective_scan_update import torch_
from hippodrome.ops.selective_scan_update.examples import inputs

NAME = "triton"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes float32, 16-bit and float64 tensors on CUDA devices, where no gradient is wanted."""
    return (
        _triton.refusal(*tensors)
        or unfit(*tensors)
        or _triton.trusted("selective_scan_update", _triton.device_index(*tensors), _check)
    )


def _check(device: torch.device) -> None:
    """Outputs and states with and without groups."""
    for g in (0, 2):
        agree(selective_scan_update, torch_.selective_scan_update, inputs(2, 70, 16, g), device, True)


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


@light_op("selective_scan_update_triton", _fake, mutates=("state",), devices=("CUDA", "CPU"))
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
    from hippodrome.ops.selective_scan_update import _triton_kernel as kernel

    b, d, n = state.shape
    y = u.new_empty(u.shape)
    if not y.numel():
        return y
    u, dt, B, C = (_triton.rows(x) for x in (u, dt, B, C))
    A, h = dense(A), dense(state)
    gate, skip, shift = z is not None, D is not None, dt_bias is not None
    # An absent tensor is never read; what stands in its place only has to be one.
    z, D, dt_bias = (
        _triton.rows(z) if z is not None else u,
        dense(D) if D is not None else A,
        (dense(dt_bias) if dt_bias is not None else A),
    )
    grouped = B.dim() == 3
    g = B.shape[1] if grouped else 1
    N = _triton.power(n)
    block = max(1, min(64, 2048 // N))
    with _triton.on(u):
        kernel.update[(-(-d // block), b)](
            *(u, dt, A, B, C, D, z, dt_bias, h, y, d, n, d // g),
            *(u.stride(0), dt.stride(0), z.stride(0), B.stride(0), B.stride(1) if grouped else 0),
            *(C.stride(0), C.stride(1) if grouped else 0),
            SOFTPLUS=softplus,
            SKIP=skip,
            GATE=gate,
            BIAS=shift,
            BLOCK=block,
            N=N,
            num_warps=4,
        )
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
    y: Tensor = _update(u, dt, A, B, C, D, z, dt_bias, state, softplus)
    return y
