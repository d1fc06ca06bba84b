"""One token of the delta rule on a GPU: an op around the Triton kernel, fit for CUDA graphs."""

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._light import agree, dense, light_op, unfit, written
from hippodrome.ops.delta_rule_update import torch_
from hippodrome.ops.delta_rule_update.examples import inputs

NAME = "triton"


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernel takes float32, 16-bit and float64 tensors on CUDA devices, where no gradient is wanted."""
    return (
        _triton.refusal(*tensors)
        or unfit(*tensors)
        or _triton.trusted("delta_rule_update", _triton.device_index(*tensors), _check)
    )


def _check(device: torch.device) -> None:
    """Outputs and states with a gate, with sizes that are no powers of two."""
    agree(delta_rule_update, torch_.delta_rule_update, inputs(2, 3, 24, 40), device)


def _fake(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor) -> Tensor:
    return v.new_empty(v.shape)


@light_op("delta_rule_update_triton", _fake, mutates=("state",), devices=("CUDA", "CPU"))
def _update(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor) -> Tensor:
    from hippodrome.ops.delta_rule_update import _triton_kernel as kernel

    b, h, keys, values = state.shape
    y = v.new_empty(v.shape)
    if not y.numel():
        return y
    q, k, v, beta = (_triton.rows(m) for m in (q, k, v, beta))
    gated = log_decay is not None
    # An absent tensor is never read; what stands in its place only has to be one.
    log_decay = _triton.rows(log_decay) if log_decay is not None else beta
    S = dense(state)
    K = _triton.power(keys)
    # Few columns a program: one token has few programs, and the memory wants many.
    block = max(1, min(_triton.power(values), 32, 2048 // K))
    with _triton.on(v):
        kernel.update[(-(-values // block), h, b)](
            *(q, k, v, beta, log_decay, S, y, h, keys, values),
            *(q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1)),
            *(beta.stride(0), log_decay.stride(0)),
            GATE=gated,
            K=K,
            BLOCK=block,
            num_warps=4,
        )
    written(state, S)
    return y


def delta_rule_update(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None, state: Tensor
) -> Tensor:
    """The output; arguments as at the door."""
    y: Tensor = _update(q, k, v, beta, log_decay, state)
    return y
