"""One token of the delta rule on the CPU: an op around the Numba kernel."""

import torch
from torch import Tensor

from hippodrome.ops._light import blank, dense, light_op, rows, unfit_for_kernel, written
from hippodrome.ops._threads import run_bytes

NAME = "numba"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes float32, bfloat16 and float64 on the CPU, where no gradient is wanted."""
    return unfit_for_kernel(*tensors)


def _fake(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor) -> Tensor:
    return v.new_empty(v.shape)


@light_op("delta_rule_update", _fake, mutates=("state",))
def _update(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor) -> Tensor:
    from hippodrome.ops.delta_rule_update import _numba_kernel as kernel

    b, h, keys, values = state.shape
    y = blank(v)
    if not y.numel():
        return y
    q, k, v, beta = rows(q), rows(k), rows(v), rows(beta)
    log_decay = None if log_decay is None else rows(log_decay)
    S = dense(state)
    strides = (
        q.stride(0),
        q.stride(1),
        k.stride(0),
        k.stride(1),
        v.stride(0),
        v.stride(1),
        beta.stride(0),
        0 if log_decay is None else log_decay.stride(0),
    )
    addresses = (
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        beta.data_ptr(),
        0 if log_decay is None else log_decay.data_ptr(),
        S.data_ptr(),
        y.data_ptr(),
    )
    arguments = ((h, keys, values), strides, addresses, kernel.SAMPLES[v.dtype], kernel.SAMPLES[S.dtype])
    run_bytes(kernel.update, b * h, S.nbytes, *arguments)
    written(state, S)
    return y


def delta_rule_update(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor
) -> Tensor:
    """The output; arguments as at the door."""
    kind, wide = v.dtype, state.dtype
    if torch.float64 in (kind, wide):
        v = v.to(wide)
    q, k = (m if m.dtype == v.dtype else m.to(v.dtype) for m in (q, k))
    beta = beta if beta.dtype == wide else beta.to(wide)
    log_decay = log_decay if log_decay is None or log_decay.dtype == wide else log_decay.to(wide)
    y: Tensor = _update(q, k, v, beta, log_decay, state)
    return y if y.dtype == kind else y.to(kind)
