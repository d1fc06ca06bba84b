"""Selective scan on the CPU: custom ops around the fused Numba kernels."""

from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hippodrome.ops._arrays import dense, flat
from hippodrome.ops._custom import register_second_order
from hippodrome.ops._threads import run_tiles
from hippodrome.ops.linear_scan import numba_ as real
from hippodrome.ops.linear_scan_complex import numba_ as pairs
from hippodrome.ops.selective_scan import torch_

NAME = "numba"
INPUTS = 10


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32, float64 and bfloat16 on the CPU; float16 is widened at the door."""
    for x in tensors:
        if x is not None and x.device.type != "cpu":
            return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
    return None


def _kernel(A: Tensor) -> Any:
    """The module of kernels for this A. A complex one, (d, n, 2), has its own."""
    if A.dim() == 3:
        from hippodrome.ops.selective_scan import _numba_complex_kernel

        return _numba_complex_kernel
    from hippodrome.ops.selective_scan import _numba_kernel

    return _numba_kernel


def _side_by_side(x: Tensor, A: Tensor) -> Tensor:
    """Complex numbers as real ones with the parts side by side in the last axis, where A is complex."""
    return x.flatten(-2) if A.dim() == 3 else x


def _grouped(x: Tensor) -> tuple[Any, tuple[int, ...]]:
    """The same for B or C, with the stride of their groups, 0 where there is one."""
    array, strides = flat(x)
    return array, strides if len(strides) == 3 else (*strides, 0)


class Tiling(NamedTuple):
    """How a call is cut up. Nothing here depends on the number of threads, so results do not either."""

    sizes: tuple[int, int, int, int, int, int, int]
    """t, d, n (both parts of complex numbers counted), n filled up to a multiple of four, groups of B and C,
    steps of a chunk, and blocks of sixteen channels in a tile."""
    tiles: int
    marks: int
    """Elements of the checkpoints: the state at the start of each chunk."""


def tiling(u: Tensor, A: Tensor, B: Tensor) -> Tiling:
    """Chunks of 32 steps keep four states in the near cache; a tile of 8 blocks shares sums for B and C."""
    (b, t, d), n, g = u.shape, A.shape[1:].numel(), B.shape[2] if B.dim() == A.dim() + 2 else 1
    m, chunk, group = -(-n // 4) * 4, 32, 8
    blocks = -(-(d // g) // 16)
    return Tiling(
        (t, d, n, m, g, chunk, group), b * g * -(-blocks // group), b * -(-t // chunk) * g * blocks * m * 16
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
    plan = tiling(u, A, B)
    y, final, marks = u.new_empty(u.shape), A.new_empty(state.shape), A.new_empty(plan.marks if save else 0)
    if y.numel():
        (us, u_strides), (dts, dt_strides), (zs, z_strides) = flat(u), flat(dt), flat(z)
        (Bs, B_strides), (Cs, C_strides) = (_grouped(_side_by_side(x, A)) for x in (B, C))
        run_tiles(
            _kernel(A).forward,
            plan.tiles,
            plan.sizes,
            (u_strides, dt_strides, z_strides, B_strides, C_strides),
            softplus,
            *(us, dts, dense(A), Bs, Cs, dense(D), zs, dense(dt_bias), dense(state), dense(resets)),
            *(dense(y), dense(final), dense(marks)),
        )
    return y, final, marks


@_forward.register_fake
def _(u, dt, A, B, C, D, z, dt_bias, state, resets, softplus, save):  # type: ignore[no-untyped-def]
    marks = tiling(u, A, B).marks if save else 0
    return u.new_empty(u.shape), A.new_empty(state.shape), A.new_empty(marks)


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
    from hippodrome.ops.selective_scan._numba_kernel import fold

    plan = tiling(u, A, B)
    b, (t, _, n, _, g) = u.shape[0], plan.sizes[:5]
    grad_u, grad_dt, grad_A, grad_D = (x.new_empty(x.shape) for x in (u, dt, A, D))
    grad_z, grad_bias, grad_state = (x.new_empty(x.shape) for x in (z, dt_bias, state))
    grad_B, grad_C = A.new_empty(b * g, t * n), A.new_empty(b * g, t * n)
    if u.numel():
        part_A, part_D, part_bias = (x.new_empty(b * x.numel()) for x in (A, D, dt_bias))
        part_B, part_C = A.new_empty(plan.tiles * t * n), A.new_empty(plan.tiles * t * n)
        (us, u_strides), (dts, dt_strides), (zs, z_strides) = flat(u), flat(dt), flat(z)
        (Bs, B_strides), (Cs, C_strides) = (_grouped(_side_by_side(x, A)) for x in (B, C))
        ys, y_strides = flat(grad_y)
        run_tiles(
            _kernel(A).backward,
            plan.tiles,
            plan.sizes,
            (u_strides, dt_strides, z_strides, B_strides, C_strides, y_strides),
            softplus,
            *(us, dts, dense(A), Bs, Cs, dense(D), zs, dense(dt_bias), dense(resets), dense(marks)),
            *(ys, dense(grad_final), dense(grad_u), dense(grad_dt), dense(grad_z), dense(grad_state)),
            *(dense(x) for x in (part_A, part_B, part_C, part_D, part_bias)),
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
                run_tiles(fold, tiles, count, inner, width, dense(parts), dense(result))
    if B.dim() == A.dim() + 2:
        grad_B = grad_B.view(b, g, t, n).transpose(1, 2).contiguous()
        grad_C = grad_C.view(b, g, t, n).transpose(1, 2).contiguous()
    grad_B, grad_C = grad_B.view(B.shape).to(B.dtype), grad_C.view(C.shape).to(C.dtype)
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
    if torch_.constant(A, B, C):
        # Vectors of channels of their own fill no lanes of the fused kernels: measured, one group a channel
        # takes twice to three times as long as a linear scan over decays and inputs that lie in memory.
        scan = pairs.linear_scan_complex if A.dim() == 3 else real.linear_scan
        return torch_.around(scan, u, dt, A, B, C, D, z, dt_bias, initial_state, resets, softplus)
    given = [u, dt, A, B, C, *(x for x in (D, z, dt_bias, initial_state) if x is not None)]
    wide = reduce(torch.promote_types, (x.dtype for x in given), torch.float32)
    inputs = [x.dtype for x in (u, z) if x is not None]
    # Along time bfloat16 is read and written as it lies; step sizes may be wider than the inputs.
    main = torch.bfloat16 if wide == torch.float32 and set(inputs) == {torch.bfloat16} else wide
    sizes = main if dt.dtype == main else wide
    state = A.new_zeros(u.shape[0], *A.shape, dtype=wide) if initial_state is None else initial_state.to(wide)
    skip, bias = (A.new_zeros(0, dtype=wide) if x is None else x.to(wide) for x in (D, dt_bias))
    gate = u.new_zeros(0, dtype=main) if z is None else z.to(main)
    marks = resets if resets is not None else u.new_zeros((0, 0), dtype=torch.bool)
    vectors = [x if x.dtype == main else x.to(wide) for x in (B, C)]
    arguments = (u.to(main), dt.to(sizes), A.to(wide), *vectors, skip, gate, bias, state)
    save = torch.is_grad_enabled() and any(x.requires_grad for x in arguments)
    y, final, _ = _forward(*arguments, marks, softplus, save)
    return y.to(u.dtype), final
