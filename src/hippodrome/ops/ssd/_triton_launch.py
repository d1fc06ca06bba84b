"""How SSD's Triton kernels are cut up and launched: outputs, and gradients into a tensor that is given."""

import torch
from torch import Tensor

from hippodrome.ops import _triton

CHUNK = 64
"""Steps of a chunk at most: their mutual decays and scores, a square, stay in registers."""
TILES = ((64, 64), (32, 64), (32, 32), (16, 32), (16, 16))
"""Tiles of the state that the pass over all chunks may take, largest first."""
FAR = 2**31
"""Offsets inside a tile are of 32 bits; a tensor whose tiles reach further is copied."""


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


def outputs(
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
    """Outputs and the last state."""
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


def gradients(
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
    grad_x: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients to all but x, whose own is written into ``grad_x``: heads side by side, tokens anywhere."""
    from hippodrome.ops.ssd import _triton_kernel as kernel

    b, t, h, p = x.shape
    g, n = B.shape[2:]
    if not x.numel() or not n:
        grad_x.zero_()
        zeros = (torch.zeros(z.shape, dtype=z.dtype, device=z.device) for z in (dt, A, B, C, D))
        return (*zeros, grad_last.clone())  # type: ignore[return-value]
    x, B, C, state = _heads(x), _heads(B), _heads(C), state.contiguous()
    A, D = A.contiguous(), D.contiguous()
    grad_y, grad_last = _heads(grad_y), grad_last.contiguous()
    marks = resets.contiguous().view(torch.uint8)
    steps, tiles = _steps(x.dtype, chunk, t), _tiles(x, n)
    pairs, slices = b * -(-t // steps), -(-n // tiles["BN"])
    types = kernel.types(x.dtype, _triton.interpreted())
    options = {"BT": steps, **tiles, "HAS_RESETS": marks.numel() > 0, **types}
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
            *grad_x.stride()[:2],
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
    return grad_dt, grad_rate.sum(0), *sums, grad_d, grad_state  # type: ignore[return-value]
