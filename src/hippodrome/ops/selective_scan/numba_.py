"""Selective scan on the CPU: custom ops around the fused Numba kernels."""

from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.selective_scan import torch_

NAME = "numba"
INPUTS = 10


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32 and float64 on the CPU; half precision is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _flat(x: Tensor) -> tuple[Any, tuple[int, ...]]:
    """The memory under a tensor as a flat array, and the strides of all axes but the last, which is dense.

    So a slice of a wider tensor is read where it lies, and the kernels see one kind of array only.
    """
    if not x.numel():
        return x.detach().reshape(-1).numpy(), (0,) * max(x.dim() - 1, 2)
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        x = x.contiguous()
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return torch.as_strided(x.detach(), (span,), (1,)).numpy(), x.stride()[:-1]


def _grouped(x: Tensor) -> tuple[Any, tuple[int, ...]]:
    """The same for B or C, with the stride of their groups, 0 where there is one."""
    array, strides = _flat(x)
    return array, strides if len(strides) == 3 else (*strides, 0)


def _dense(x: Tensor) -> Any:
    return x.detach().contiguous().view(-1).numpy()


class Tiling(NamedTuple):
    """How a call is cut up. Nothing here depends on the number of threads, so results do not either."""

    sizes: tuple[int, int, int, int, int, int]
    """t, d, n, groups of B and C, steps of a chunk, and blocks of sixteen channels in a tile."""
    tiles: int
    marks: int
    """Elements of the checkpoints: the state at the start of each chunk."""


def tiling(u: Tensor, A: Tensor, B: Tensor) -> Tiling:
    """Chunks of 32 steps keep states in the near cache; a tile of 8 blocks shares one sum for B and C."""
    (b, t, d), n, g = u.shape, A.shape[1], B.shape[2] if B.dim() == 4 else 1
    chunk = 32 if n <= 16 else 16
    group = 8
    blocks = -(-(d // g) // 16)
    return Tiling(
        (t, d, n, g, chunk, group), b * g * -(-blocks // group), b * -(-t // chunk) * g * blocks * n * 16
    )


@torch.library.custom_op("hippodrome::selective_scan", mutates_args=())
def _forward(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    state: Tensor,
    resets: Tensor,
    softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.selective_scan import _numba_kernel as kernel

    plan = tiling(u, A, B)
    y, final, marks = u.new_empty(u.shape), u.new_empty(state.shape), u.new_empty(plan.marks if save else 0)
    if y.numel():
        (us, u_strides), (dts, dt_strides), (zs, z_strides) = _flat(u), _flat(dt), _flat(z)
        (Bs, B_strides), (Cs, C_strides) = _grouped(B), _grouped(C)
        run_tiles(
            kernel.forward,
            plan.tiles,
            plan.sizes,
            (u_strides, dt_strides, z_strides, B_strides, C_strides),
            softplus,
            *(us, dts, _dense(A), Bs, Cs, _dense(D), zs, _dense(dt_bias), _dense(state), _dense(resets)),
            *(_dense(y), _dense(final), _dense(marks)),
        )
    return y, final, marks


@_forward.register_fake
def _(u, dt, A, B, C, D, z, dt_bias, state, resets, softplus, save):  # type: ignore[no-untyped-def]
    marks = tiling(u, A, B).marks if save else 0
    return u.new_empty(u.shape), u.new_empty(state.shape), u.new_empty(marks)


@torch.library.custom_op("hippodrome::selective_scan_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_final: Tensor,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    dt_bias: Tensor,
    state: Tensor,
    resets: Tensor,
    softplus: bool,
    marks: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.selective_scan import _numba_kernel as kernel

    plan = tiling(u, A, B)
    b, (t, _, n, g) = u.shape[0], plan.sizes[:4]
    grad_u, grad_dt, grad_A, grad_D = (x.new_empty(x.shape) for x in (u, dt, A, D))
    grad_z, grad_bias, grad_state = (x.new_empty(x.shape) for x in (z, dt_bias, state))
    grad_B, grad_C = u.new_empty(b * g, t * n), u.new_empty(b * g, t * n)
    if u.numel():
        part_A, part_D, part_bias = (x.new_empty(b * x.numel()) for x in (A, D, dt_bias))
        part_B, part_C = u.new_empty(plan.tiles * t * n), u.new_empty(plan.tiles * t * n)
        (us, u_strides), (dts, dt_strides), (zs, z_strides) = _flat(u), _flat(dt), _flat(z)
        (Bs, B_strides), (Cs, C_strides), (ys, y_strides) = _grouped(B), _grouped(C), _flat(grad_y)
        run_tiles(
            kernel.backward,
            plan.tiles,
            plan.sizes,
            (u_strides, dt_strides, z_strides, B_strides, C_strides, y_strides),
            softplus,
            *(us, dts, _dense(A), Bs, Cs, _dense(D), zs, _dense(dt_bias), _dense(resets), _dense(marks)),
            *(ys, _dense(grad_final), _dense(grad_u), _dense(grad_dt), _dense(grad_z), _dense(grad_state)),
            *(_dense(x) for x in (part_A, part_B, part_C, part_D, part_bias)),
        )
        for parts, result, outer in (
            (part_A, grad_A, 1),
            (part_D, grad_D, 1),
            (part_bias, grad_bias, 1),
            (part_B, grad_B, b * g),
            (part_C, grad_C, b * g),
        ):
            inner = result.numel() // outer
            if inner:
                width = 4096
                count = parts.numel() // result.numel()
                tiles = outer * -(-inner // width)
                run_tiles(kernel.fold, tiles, count, inner, width, _dense(parts), _dense(result))
    if B.dim() == 4:
        grad_B = grad_B.view(b, g, t, n).transpose(1, 2).contiguous()
        grad_C = grad_C.view(b, g, t, n).transpose(1, 2).contiguous()
    grad_B, grad_C = grad_B.view(B.shape), grad_C.view(C.shape)
    return grad_u, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_state


@_backward.register_fake
def _(grad_y, grad_final, *inputs):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in inputs[:9])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:INPUTS], output[2])
    ctx.softplus = inputs[INPUTS]


def _gradient(ctx: Any, grad_y: Tensor, grad_final: Tensor, grad_marks: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, marks = ctx.saved_tensors
    if not marks.numel():
        marks = _forward(*inputs, ctx.softplus, True)[2]
    return (*_backward(grad_y, grad_final, *inputs, ctx.softplus, marks), None, None, None)


def _form(*inputs: Any) -> tuple[Tensor, Tensor]:
    u, dt, A, B, C, D, z, dt_bias, state, resets, softplus = inputs
    D, z, dt_bias, resets = (x if x.numel() else None for x in (D, z, dt_bias, resets))
    return torch_.selective_scan(u, dt, A, B, C, D, z, dt_bias, state, resets, softplus)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=INPUTS, options=1)


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs and final state; arguments as at the door."""
    floats = (u, dt, A, B, C, D, z, dt_bias, initial_state)
    wide = reduce(torch.promote_types, (x.dtype for x in floats if x is not None), torch.float32)
    state = u.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state
    absent = u.new_zeros(0)
    arguments = (u, dt, A, B, C, *(absent if x is None else x for x in (D, z, dt_bias)), state)
    marks = resets if resets is not None else u.new_zeros((0, 0), dtype=torch.bool)
    save = torch.is_grad_enabled() and any(x.requires_grad for x in arguments)
    y, final, _ = _forward(*(x.to(wide) for x in arguments), marks, softplus, save)
    return y.to(u.dtype), final
