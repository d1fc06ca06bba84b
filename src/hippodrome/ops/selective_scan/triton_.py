"""Selective scan on a GPU: custom ops around the Triton kernels."""

from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._custom import register_second_order
from hippodrome.ops.linear_scan.triton_ import linear_scan, scan_segments
from hippodrome.ops.selective_scan import torch_
from hippodrome.ops.selective_scan.examples import inputs

NAME = "triton"
INPUTS = 10
WARPS = 12
"""Programs of one warp for each multiprocessor: three for each of its four schedulers."""
SHORTEST = 64
"""Steps of a segment at least."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels take float32, 16-bit and float64 tensors, on CUDA devices that pass the self-check."""
    if tensors[2] is not None and tensors[2].dim() == 3:
        return "the Triton kernels take a real A, and this one is complex."
    return _triton.refusal(*tensors) or _triton.trusted(
        "selective_scan", _triton.device_index(*tensors), _check
    )


def _check(device: torch.device) -> None:
    """Values and gradients with everything fused, over two segments.

    The state has Mamba's size and every tile is whole: so what is compiled here serves a Mamba's own calls.
    """
    arguments = inputs(2, 128, 48, 16, with_resets=False)
    _triton.agree(
        partial(selective_scan, softplus=True),
        partial(torch_.selective_scan, softplus=True),
        arguments,
        device,
    )


class Plan(NamedTuple):
    """How a call is cut up, from its shape and the number of multiprocessors alone."""

    N: int
    """The state size as a power of two."""
    D: int
    """Channels of a program: 256 numbers of state for each warp, 16 channels at most."""
    U: int
    """Steps of a group."""
    warps: int
    rows: int
    """Programs of one segment."""
    held: int
    """Segments for which starts are kept, whatever the length."""
    segments: int
    steps: int
    """Steps of a segment, whole groups."""
    even: bool
    """Whether every tile is whole, so that no read or write needs a mask."""

    @property
    def grid(self) -> tuple[int]:
        """Programs of a call."""
        return (self.rows * self.segments,)


def plan(u: Tensor, A: Tensor, B: Tensor) -> Plan:
    """Segments only where channels alone would leave most of the GPU idle: exponentials then count twice."""
    (b, t, d), n, g = u.shape, A.shape[1], B.shape[2] if B.dim() == 4 else 1
    N = _triton.power(n)
    D = min(max(256 // N, 1), 16, _triton.power(d // g))
    U = 4 if u.dtype == torch.float64 or N > 256 else 8
    rows = b * g * -(-(d // g) // D)
    held = held_segments(u, A, B)
    segments = max(1, min(held, t // SHORTEST))
    steps = -(-t // (segments * U)) * U
    even = n == N and t == segments * steps and (d // g) % D == 0
    return Plan(N, D, U, min(max(N * D // 256, 1), 8), rows, held, segments, steps, even)


def held_segments(u: Tensor, A: Tensor, B: Tensor) -> Any:
    """How many segments a row may be cut into: of batch and channels alone, so that any length traces."""
    b, d, n, g = u.shape[0], u.shape[2], A.shape[1], B.shape[2] if B.dim() == 4 else 1
    D = min(max(256 // _triton.power(n), 1), 16, _triton.power(d // g))
    rows = torch.sym_max(b * g * -(-(d // g) // D), 1)
    return torch.sym_min(torch.sym_max(WARPS * _triton.processors(u) // rows, 1), 64)


def _steps(x: Tensor) -> tuple[int, int]:
    """Strides of rows and of steps; zeros for an argument that is absent."""
    return (x.stride(0), x.stride(1)) if x.numel() else (0, 0)


def _grouped(x: Tensor) -> tuple[int, int, int]:
    """The same for B or C, with the stride of their groups."""
    return (*_steps(x), x.stride(2) if x.dim() == 4 else 0)


def _switches(cut: Plan, A: Tensor, bias: Tensor, resets: Tensor, softplus: bool) -> dict[str, Any]:
    """What all kernels are compiled for."""
    import triton.language as tl

    return {
        "n": A.shape[1],
        "N": cut.N,
        "D": cut.D,
        "U": cut.U,
        "EVEN": cut.even,
        "SOFTPLUS": softplus,
        "BIAS": bias.numel() > 0,
        "RESETS": resets.numel() > 0,
        "WIDE": tl.float64 if A.dtype == torch.float64 else tl.float32,
        "num_warps": cut.warps,
    }


@torch.library.custom_op("hippodrome::selective_scan_triton", mutates_args=())
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
) -> tuple[Tensor, Tensor, Tensor]:
    from hippodrome.ops.selective_scan import _triton_kernel as kernel

    y, final = u.new_empty(u.shape), state.new_empty(state.shape)
    # Zeros, so that the part that a short row leaves unused is the same each time.
    starts = state.new_zeros(u.shape[0], held_segments(u, A, B), *A.shape)
    if not u.numel() or not A.numel():
        return y.zero_() if not D.numel() else _no_state(u, D, z), state.clone(), starts
    u, dt, B, C, z = (_triton.rows(x) for x in (u, dt, B, C, z))
    A, D, dt_bias, state, resets = (x.contiguous() for x in (A, D, dt_bias, state, resets))
    with _triton.on(u):
        cut = plan(u, A, B)
        switches = _switches(cut, A, dt_bias, resets, softplus)
        sizes = (*u.shape[1:], B.shape[2] if B.dim() == 4 else 1, cut.segments, cut.steps)
        used = starts.view(-1)[: u.shape[0] * cut.segments * A.numel()].view(-1, cut.segments, *A.shape)
        if cut.segments == 1:
            used.copy_(state[:, None])
        else:
            product, value = (torch.empty_like(used) for _ in range(2))
            kernel.aggregate[cut.grid](
                *(u, dt, A, B, dt_bias, resets, product, value, *sizes),
                *(*_steps(u), *_steps(dt), *_grouped(B)),
                **switches,
            )
            used.copy_(scan_segments(product, value, state))
        kernel.forward[cut.grid](
            *(u, dt, A, B, C, D, z, dt_bias, used, resets, y, final, *sizes),
            *(*_steps(u), *_steps(dt), *_grouped(B), *_grouped(C), *_steps(z)),
            SKIP=D.numel() > 0,
            GATE=z.numel() > 0,
            **switches,
        )
    return y, final, starts


def _no_state(u: Tensor, D: Tensor, z: Tensor) -> Tensor:
    """Outputs where the state has no coordinates."""
    y = D * u
    return (y * torch.nn.functional.silu(z) if z.numel() else y).to(u.dtype)


@_forward.register_fake
def _(u, dt, A, B, C, D, z, dt_bias, state, resets, softplus):  # type: ignore[no-untyped-def]
    starts = state.new_empty(u.shape[0], held_segments(u, A, B), *A.shape)
    return u.new_empty(u.shape), state.new_empty(state.shape), starts


@torch.library.custom_op("hippodrome::selective_scan_triton_backward", mutates_args=())
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
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.selective_scan import _triton_kernel as kernel

    grad_u, grad_dt, grad_z = (x.new_empty(x.shape) for x in (u, dt, z))
    grad_state = state.new_empty(state.shape)
    b, t, d = u.shape
    g, n = B.shape[2] if B.dim() == 4 else 1, A.shape[1]
    u, dt, B, C, z, grad_y = (_triton.rows(x) for x in (u, dt, B, C, z, grad_y))
    A, D, dt_bias, resets = (x.contiguous() for x in (A, D, dt_bias, resets))
    grad_final = grad_final.to(state.dtype).contiguous()
    with _triton.on(u):
        cut = plan(u, A, B)
        switches = _switches(cut, A, dt_bias, resets, softplus)
        gate, many = z.numel() > 0, cut.segments > 1
        sizes = (*u.shape[1:], g, cut.segments, cut.steps)
        strides = (*_steps(u), *_steps(dt), *_grouped(B), *_grouped(C), *_steps(z), *_steps(grad_y))
        used = starts.view(-1)[: b * cut.segments * A.numel()].view(-1, cut.segments, *A.shape)
        trail = used.new_empty(b, -(-t // cut.U), d, n)
        product, value = (used.new_empty(used.shape if many else 0) for _ in range(2))
        kernel.retrace[cut.grid](
            *(u, dt, A, B, C, z, dt_bias, used, resets, grad_y, trail, product, value, *sizes, *strides),
            GATE=gate,
            PAIRS=many,
            **switches,
        )
        ends = scan_segments(product, value, grad_final) if many else grad_final
        part_A = used.new_empty(b * cut.segments, d, n)
        part_D, part_bias = (used.new_empty(b * cut.segments if x.numel() else 0, d) for x in (D, dt_bias))
        part_B, part_C = (used.new_empty(b, g, cut.rows // (b * g), t, n) for _ in range(2))
        kernel.backward[cut.grid](
            *(u, dt, A, B, C, D, z, dt_bias, ends, resets, grad_y, trail),
            *(grad_u, grad_dt, grad_z, grad_state, part_A, part_B, part_C, part_D, part_bias),
            *(*sizes, *strides),
            SKIP=D.numel() > 0,
            GATE=gate,
            APART=cut.U,
            **{**switches, "U": cut.U // 2},
        )
        grad_A = part_A.sum(0, dtype=torch.float64).to(A.dtype)
        grad_D, grad_bias = (
            part.sum(0, dtype=torch.float64).to(x.dtype) if x.numel() else torch.empty_like(x)
            for part, x in ((part_D, D), (part_bias, dt_bias))
        )
        grad_B, grad_C = (
            part.sum(2).transpose(1, 2).to(x.dtype).reshape(x.shape) for part, x in ((part_B, B), (part_C, C))
        )
    return grad_u, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_state


@_backward.register_fake
def _(grad_y, grad_final, *inputs):  # type: ignore[no-untyped-def]
    return tuple(x.new_empty(x.shape) for x in inputs[:9])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:INPUTS], output[2])
    ctx.softplus = inputs[INPUTS]


def _gradient(ctx: Any, grad_y: Tensor, grad_final: Tensor, grad_starts: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, starts = ctx.saved_tensors
    return (*_backward(grad_y, grad_final, *inputs, ctx.softplus, starts), None, None)


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
        return torch_.around(linear_scan, u, dt, A, B, C, D, z, dt_bias, initial_state, resets, softplus)
    dtype = u.dtype
    floats = (u, dt, A, B, C, D, z, dt_bias, initial_state)
    wide = _triton.wide(reduce(torch.promote_types, (x.dtype for x in floats if x is not None)))
    if wide == torch.float64:
        u, dt, B, C = (x.to(wide) for x in (u, dt, B, C))
        z = z if z is None else z.to(wide)
    shape = (u.shape[0], *A.shape)
    state = u.new_zeros(shape, dtype=wide) if initial_state is None else initial_state.to(wide)
    absent = u.new_zeros(0, dtype=wide)
    skip, bias = (absent if x is None else x.to(wide) for x in (D, dt_bias))
    marks = resets if resets is not None else u.new_zeros(0, dtype=torch.bool)
    gate = u.new_zeros(0) if z is None else z
    y, final, _ = _forward(u, dt, A.to(wide), B, C, skip, gate, bias, state, marks, softplus)
    return y.to(dtype), final
