"""One token of the causal convolution on the CPU: an op around the Numba kernel."""

import torch
from torch import Tensor

from hippodrome.ops._light import blank, dense, light_op, unfit_for_kernel, written
from hippodrome.ops._threads import run_bytes

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes float32, bfloat16 and float64 on the CPU, where no gradient is wanted."""
    return unfit_for_kernel(*tensors)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> Tensor:
    return x.new_empty(x.shape)


@light_op("causal_conv_update", _fake, mutates=("state",))
def _update(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> Tensor:
    from hippodrome.ops.causal_conv_update import _numba_kernel as kernel

    y = blank(x)
    if not y.numel():
        return y
    if x.stride(1) != 1:
        x = x.contiguous()
    weight, shift, window = dense(weight), None if bias is None else dense(bias), dense(state)
    if shift is not None and shift.dtype != weight.dtype:
        shift = shift.to(weight.dtype)
    sizes = (*x.shape, weight.shape[1], x.stride(0))
    addresses = (
        x.data_ptr(),
        weight.data_ptr(),
        0 if shift is None else shift.data_ptr(),
        window.data_ptr(),
        y.data_ptr(),
    )
    samples = kernel.SAMPLES
    arguments = (sizes, silu, addresses, samples[x.dtype], samples[weight.dtype], samples[state.dtype])
    run_bytes(kernel.update, -(-x.shape[1] // kernel.LANES), weight.nbytes + window.nbytes, *arguments)
    written(state, window)
    return y


def causal_conv_update(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor, silu: bool) -> Tensor:
    """The output; arguments as at the door."""
    if x.dtype == torch.float64 or state.dtype == torch.float64:
        x64, weight = x.to(state.dtype), weight.to(state.dtype)
        y: Tensor = _update(x64, weight, bias, state, silu)
        return y.to(x.dtype)
    y = _update(x, weight, bias, state, silu)
    return y
