"""One token of SSD on a GPU: an op around the Triton kernel, fit for CUDA graphs."""

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._light import agree, dense, light_op, unfit, written
from hippodrome.ops.ssd_update import torch_
from hippodrome.ops.ssd_update.examples import inputs

NAME = "triton"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes float32, 16-bit and float64 tensors on CUDA devices, where no gradient is wanted."""
    return (
        _triton.refusal(*tensors)
        or unfit(*tensors)
        or _triton.trusted("ssd_update", _triton.device_index(*tensors), _check)
    )


def _check(device: torch.device) -> None:
    """Outputs and states, with groups, softplus and bounds."""
    agree(ssd_update, torch_.ssd_update, inputs(2, 4, 40, 24, 2), device, True, 0.5, 0.7)


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


@light_op("ssd_update_triton", _fake, mutates=("state",), devices=("CUDA", "CPU"))
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
    from hippodrome.ops.ssd_update import _triton_kernel as kernel

    b, h, p, n = state.shape
    y = x.new_empty(x.shape)
    if not y.numel():
        return y
    x, dt, B, C = (_triton.rows(m) for m in (x, dt, B, C))
    A, S = dense(A), dense(state)
    skip, shift = D is not None, dt_bias is not None
    # An absent tensor is never read; what stands in its place only has to be one.
    D, dt_bias = dense(D) if D is not None else A, dense(dt_bias) if dt_bias is not None else A
    N = _triton.power(n)
    block = max(1, min(_triton.power(p), 4096 // N))
    with _triton.on(x):
        kernel.update[(-(-p // block), h, b)](
            *(x, dt, A, B, C, D, dt_bias, S, y, h, p, n, h // B.shape[1], low, high),
            *(x.stride(0), x.stride(1), dt.stride(0), B.stride(0), B.stride(1), C.stride(0), C.stride(1)),
            SOFTPLUS=softplus,
            SKIP=skip,
            BIAS=shift,
            BLOCK=block,
            N=N,
            num_warps=4,
        )
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
    y: Tensor = _update(x, dt, A, B, C, D, dt_bias, state, softplus, low, high)
    return y
