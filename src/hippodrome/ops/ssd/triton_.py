"""SSD on the GPU: custom ops around the Triton kernels."""

from typing import Any

import torch
from torch import Tensor

from hippodrome.ops import _triton
from hippodrome.ops._custom import register_second_order
from hippodrome.ops.ssd import torch_
from hippodrome.ops.ssd.examples import inputs

NAME = "triton"
CHUNK = 64
"""Steps of a chunk at most: their mutual decays and scores, a square, stay in registers."""
TILES = ((64, 64), (32, 64), (32, 32), (16, 32), (16, 16))
"""Tiles of the state that the pass over all chunks may take, largest first."""
FAR = 2**31
"""Offsets inside a tile are of 32 bits; a tensor whose tiles reach further is copied."""


def refusal(*tensors: Tensor | None) -> str | None:
    """The kernels run on CUDA devices, on each after they have agreed with the torch backend there once."""
    sentence = _triton.refusal(*tensors)
    if sentence is not None:
        return sentence
    index, x = _triton.device_index(*tensors), tensors[0]
    if x is not None and x.dtype.itemsize == 2:
        return _triton.trusted("ssd in 16 bits", index, _check_halves)
    return _triton.trusted("ssd", index, _check)


def _check(device: torch.device) -> None:
    _triton.agree(_fast, _plain, _small(), device)


def _check_halves(device: torch.device) -> None:
    """bfloat16 has other instructions for its products, and is held to its own digits."""

    def narrow(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Any) -> tuple[Any, ...]:
        return x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16(), *rest

    def rounded(*z: Any) -> tuple[Any, ...]:
        return tuple(x if x is None else x.to(y.dtype) for x, y in zip(narrow(*z), z, strict=True))

    _triton.agree(lambda *z: _fast(*narrow(*z)), lambda *z: _plain(*rounded(*z)), _small(), device, 5e-2)


def _small() -> tuple[Tensor | None, ...]:
    """Arguments for whose sizes, of whole sixteens but no whole tiles, most calls need the same kernels."""
    return inputs(b=1, t=CHUNK + 9, h=2, p=48, n=80, g=1, with_resets=False)


def _fast(*z: Any) -> tuple[Tensor, Tensor]:
    return ssd(*z, CHUNK)


def _plain(*z: Any) -> tuple[Tensor, Tensor]:
    return torch_.ssd(*z, CHUNK)


def _heads(x: Tensor) -> Tensor:
    """A (b, t, h, .) tensor that a tile can be read from: rows without gaps, and not too far apart."""
    x = _triton.rows(x)
    return x.contiguous() if CHUNK * x.stride(1) >= FAR else x


def _tiles(x: Tensor, n: int) -> dict[str, int]:
    """Sides of the tiles of the channels of x and of the state that the kernels of one chunk take."""
    most = 32 if x.dtype.itemsize > 2 else 64
    return {"BP": _side(x.shape[-1], most), "BN": _side(n, most)}


def _side(size: int, most: int) -> int:
    """A power of two that covers the size, from 16, the least side of a product, to ``most``."""
    return min(max(_triton.power(size), 16), most)


def _steps(dtype: torch.dtype, chunk: int, t: int) -> int:
    return _side(min(chunk, t), CHUNK // 2 if dtype.itemsize > 2 else CHUNK)


def _registers(x: Tensor) -> dict[str, int]:
    """Half of a multiprocessor's registers for one program, where next to none spill: then two fit."""
    return {"maxnreg": 128} if x.dtype.itemsize == 2 else {}


def _abreast(heads: int, programs: int, x: Tensor) -> int:
    """How many of a group's heads one program takes in turn, with enough programs left to fill the device."""
    parts = min(heads, -(-4 * _triton.processors(x) // max(programs, 1)))
    return -(-heads // parts)


def _boundaries(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, state: Tensor, resets: Tensor, steps: int, reverse: bool
) -> tuple[Tensor, Tensor]:
    """What each chunk starts from, (b, h, chunks, p, n), and what the last one leaves."""
    from hippodrome.ops.ssd import _triton_kernel as kernel

    b, t, h, p = x.shape
    g, n = B.shape[2:]
    dtype = x.dtype if x.dtype == torch.bfloat16 else _triton.wide(x.dtype)
    before = x.new_empty((b, h, -(-t // steps), p, n), dtype=dtype)
    last = torch.empty_like(state)
    most = 32 if x.dtype == torch.float64 else 64
    for tile in TILES:
        rows, columns = _side(p, min(tile[0], most)), _side(n, min(tile[1], most))
        programs = b * h * -(-p // rows) * -(-n // columns)
        if programs >= _triton.processors(x):
            break
    types = kernel.types(x.dtype, _triton.interpreted())
    del types["RAW"]
    kernel.states[(b * h, -(-p // rows), -(-n // columns))](
        x,
        dt,
        A,
        B,
        resets,
        state,
        before,
        last,
        *x.stride()[:3],
        *dt.stride(),
        *B.stride()[:3],
        t,
        h,
        p,
        n,
        h // g,
        BT=steps,
        BP=rows,
        BN=columns,
        REVERSE=reverse,
        HAS_RESETS=resets.numel() > 0,
        **types,
        num_warps=4,
        num_stages=3,
    )
    return before, last


@torch.library.custom_op("hippodrome::ssd_triton", mutates_args=())
def _forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    from hippodrome.ops.ssd import _triton_kernel as kernel

    b, t, h, p = x.shape
    g, n = B.shape[2:]
    if not x.numel() or not n:
        return torch.zeros(x.shape, dtype=x.dtype, device=x.device), state.clone()
    x, B, C, state = _heads(x), _heads(B), _heads(C), state.contiguous()
    A, D = A.contiguous(), D.contiguous()
    marks = resets.contiguous().view(torch.uint8)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    steps, tiles = _steps(x.dtype, chunk, t), _tiles(x, n)
    pairs, slices = b * -(-t // steps), -(-p // tiles["BP"])
    abreast = _abreast(h // g, pairs * g * slices, x)
    with _triton.on(x):
        before, last = _boundaries(x, dt, A, B, state, marks, steps, False)
        kernel.outputs[(pairs, g * -(-(h // g) // abreast), slices)](
            x,
            dt,
            A,
            B,
            C,
            D,
            marks,
            before,
            y,
            *x.stride()[:3],
            *dt.stride(),
            *B.stride()[:3],
            *C.stride()[:3],
            t,
            h,
            p,
            n,
            h // g,
            abreast,
            BT=steps,
            **tiles,
            HAS_D=D.numel() > 0,
            HAS_RESETS=marks.numel() > 0,
            **kernel.types(x.dtype, _triton.interpreted()),
            num_warps=8,
            num_stages=2,
            **_registers(x),
        )
    return y, last


@_forward.register_fake
def _(x, dt, A, B, C, D, state, resets, chunk):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), state.new_empty(state.shape)


@torch.library.custom_op("hippodrome::ssd_triton_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
    grad_last: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    state: Tensor,
    resets: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from hippodrome.ops.ssd import _triton_kernel as kernel

    b, t, h, p = x.shape
    g, n = B.shape[2:]
    if not x.numel() or not n:
        zeros = (torch.zeros(z.shape, dtype=z.dtype, device=z.device) for z in (x, dt, A, B, C, D))
        return (*zeros, grad_last.clone())  # type: ignore[return-value]
    x, B, C, state = _heads(x), _heads(B), _heads(C), state.contiguous()
    A, D = A.contiguous(), D.contiguous()
    grad_y, grad_last = _heads(grad_y), grad_last.contiguous()
    marks = resets.contiguous().view(torch.uint8)
    steps, tiles = _steps(x.dtype, chunk, t), _tiles(x, n)
    pairs, slices = b * -(-t // steps), -(-n // tiles["BN"])
    types = kernel.types(x.dtype, _triton.interpreted())
    options = {"BT": steps, **tiles, "HAS_RESETS": marks.numel() > 0, **types}
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad_dt = torch.empty(dt.shape, dtype=dt.dtype, device=x.device)
    grad_rate, grad_skip = (x.new_empty((pairs, h), dtype=A.dtype) for _ in range(2))
    strides = (*grad_y.stride()[:3], *x.stride()[:3], *dt.stride(), *B.stride()[:3], *C.stride()[:3])
    with _triton.on(x):
        before, _last = _boundaries(x, dt, A, B, state, marks, steps, False)
        after, grad_state = _boundaries(grad_y, dt, A, C, grad_last, marks, steps, True)
        abreast = _abreast(h // g, pairs * g, x)
        kernel.grad_inputs[(pairs, g * -(-(h // g) // abreast))](
            grad_y,
            x,
            dt,
            A,
            B,
            C,
            D,
            marks,
            before,
            after,
            grad_x,
            grad_dt,
            grad_rate,
            grad_skip,
            *strides,
            t,
            h,
            p,
            n,
            h // g,
            abreast,
            HAS_D=D.numel() > 0,
            **options,
            num_warps=8,
            num_stages=2,
        )
        abreast = _abreast(h // g, pairs * g * slices, x)
        parts = -(-(h // g) // abreast)
        # Parts are summed by PyTorch, in an order of its own that is the same in every run.
        dtype = B.dtype if parts == 1 else A.dtype
        grad_b, grad_c = (x.new_empty((parts, *B.shape), dtype=dtype) for _ in range(2))
        kernel.grad_directions[(pairs, g * parts, slices)](
            grad_y,
            x,
            dt,
            A,
            B,
            C,
            marks,
            before,
            after,
            grad_b,
            grad_c,
            *strides,
            b,
            t,
            h,
            p,
            n,
            h // g,
            g,
            abreast,
            **options,
            num_warps=8,
            num_stages=2,
        )
    sums = [z[0] if parts == 1 else z.sum(0).to(B.dtype) for z in (grad_b, grad_c)]
    grad_d = grad_skip.sum(0) if D.numel() else torch.zeros_like(D)
    return grad_x, grad_dt, grad_rate.sum(0), *sums, grad_d, grad_state  # type: ignore[return-value]


@_backward.register_fake
def _(grad_y, grad_last, x, dt, A, B, C, D, state, resets, chunk):  # type: ignore[no-untyped-def]
    return tuple(z.new_empty(z.shape) for z in (x, dt, A, B, C, D, state))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.chunk = inputs
    ctx.save_for_backward(*tensors)


def _gradient(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
    return (*_backward(grad_y, grad_last, *ctx.saved_tensors, ctx.chunk), None, None)


def _form(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor, resets: Tensor
) -> tuple[Tensor, Tensor]:
    skip, marks = D if D.numel() else None, resets if resets.numel() else None
    return torch_.ssd(x, dt, A, B, C, skip, state, marks, torch_.CHUNK)


_forward.register_autograd(_gradient, setup_context=_setup)
register_second_order(_backward, _form, outputs=2, inputs=8)


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; arguments as at the door."""
    b, _, h, p = x.shape
    dtype = x.dtype
    if dtype.itemsize > 2:
        for z in (dt, A, B, C):
            dtype = torch.promote_types(dtype, z.dtype)
    wide = _triton.wide(dtype)
    sizes = dt if dt.dtype == dtype else dt.to(wide)
    state = x.new_zeros((b, h, p, B.shape[-1]), dtype=wide) if initial_state is None else initial_state
    skip = x.new_zeros(0, dtype=wide) if D is None else D.to(wide)
    marks = x.new_zeros((0, 0), dtype=torch.bool) if resets is None else resets
    narrow = (z.to(dtype) for z in (B, C))
    y, last = _forward(x.to(dtype), sizes, A.to(wide), *narrow, skip, state.to(wide), marks, chunk)
    return y.to(x.dtype), last.to(_triton.wide(x.dtype))
