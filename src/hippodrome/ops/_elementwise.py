"""How a tape holds operations of PyTorch: for each one the kernel that does the same on the same memory.

A form runs the operation, which makes its output, and puts on the tape the kernel that makes it again.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hippodrome.ops._tape import Tape
from hippodrome.ops.linear.numba_ import ROWS
from hippodrome.ops.quantized_linear import tiled_

aten = torch.ops.aten
Form = Callable[..., Any]
Number = int | float


class Unheld(ValueError):
    """A tape cannot hold what was asked of it; the message says what."""


def _spread(x: Tensor, shape: torch.Size) -> tuple[int, ...]:
    """Strides of the tensor over four axes of a shape, 0 where it has one number for all."""
    strides = x.expand(shape).stride()
    return (0,) * (4 - len(strides)) + tuple(strides)


def _put(
    tape: Tape,
    name: str,
    y: Tensor,
    a: Tensor,
    b: Tensor | Number | None = None,
    alpha: Number = 1.0,
) -> None:
    """Note y = f(a, b)."""
    from hippodrome.ops import _elementwise_kernel as kernel

    operands = [y, a, *([b] if isinstance(b, Tensor) else [])]
    kinds = {x.dtype for x in operands}
    if not kinds <= set(kernel.SAMPLES) or (torch.float64 in kinds and len(kinds) > 1):
        raise Unheld(f"{name} on numbers of {' and '.join(sorted(map(str, kinds)))} has no form on a tape")
    if y.dim() > 4:
        raise Unheld(f"{name} over {y.dim()} axes has no form on a tape")
    shape = y.shape
    sizes = (1,) * (4 - y.dim()) + tuple(shape)
    second = b if isinstance(b, Tensor) else None
    strides = (
        *_spread(a, shape),
        *((0, 0, 0, 0) if second is None else _spread(second, shape)),
        *_spread(y, shape),
    )
    addresses = (a.data_ptr(), 0 if second is None else second.data_ptr(), y.data_ptr())
    numbers = (float(alpha), 0.0 if b is None or second is not None else float(b))
    samples = [kernel.SAMPLES[x.dtype] for x in (a, a if second is None else second, y)]
    tiles = sizes[0] * sizes[1] * sizes[2] * -(-sizes[3] // kernel.BLOCK)
    arguments = (kernel.CODES[name], sizes, strides, numbers, addresses, *samples)
    # Compiles the kernel for these dtypes; no tile of it runs.
    kernel.apply(0, 0, *arguments)
    tape.kept += [a, b, y]
    tape.note(kernel.apply, tiles, y.nbytes, arguments)


def _unary(name: str) -> Form:
    def form(tape: Tape, func: Any, x: Tensor, *options: Any, **named: Any) -> Tensor:
        y: Tensor = func(x, *options, **named)
        _put(tape, name, y, x)
        return y

    return form


def _binary(name: str) -> Form:
    def form(tape: Tape, func: Any, a: Any, b: Any, **named: Any) -> Tensor:
        y: Tensor = func(a, b, **named)
        _put(tape, name, y, a, b, named.get("alpha", 1.0))
        return y

    return form


def _difference(tape: Tape, func: Any, a: Tensor, b: Any, alpha: Number = 1.0) -> Tensor:
    y: Tensor = func(a, b, alpha=alpha)
    _put(tape, "add", y, a, b, -alpha) if isinstance(b, Tensor) else _put(tape, "add", y, a, -b, alpha)
    return y


def _negative(tape: Tape, func: Any, x: Tensor) -> Tensor:
    y: Tensor = func(x)
    _put(tape, "mul", y, x, -1.0)
    return y


def _square(tape: Tape, func: Any, x: Tensor, power: Number = 2) -> Tensor:
    if power != 2:
        raise Unheld(f"a power of {power} has no form on a tape")
    y: Tensor = func(x, power) if func is aten.pow.Tensor_Scalar else func(x)
    _put(tape, "mul", y, x, x)
    return y


def _gelu(tape: Tape, func: Any, x: Tensor, approximate: str = "none") -> Tensor:
    y: Tensor = func(x, approximate=approximate)
    _put(tape, "gelu" if approximate == "none" else "gelu_tanh", y, x)
    return y


def _softplus(tape: Tape, func: Any, x: Tensor, beta: Number = 1, threshold: Number = 20) -> Tensor:
    if beta != 1:
        raise Unheld(f"softplus with beta {beta} has no form on a tape")
    y: Tensor = func(x, beta, threshold)
    _put(tape, "softplus", y, x)
    return y


def _copy(tape: Tape, func: Any, x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    func(x, source)
    _put(tape, "copy", x, source)
    return x


def _joined(tape: Tape, func: Any, parts: list[Tensor], axis: int = 0) -> Tensor:
    y: Tensor = func(parts, axis)
    sizes = [x.shape[axis] for x in parts] if func is aten.cat.default else []
    places = y.split(sizes, axis) if sizes else y.unbind(axis)
    for x, place in zip(parts, places, strict=True):
        if place.numel():
            _put(tape, "copy", place, x)
    return y


def _clamp(tape: Tape, func: Any, x: Tensor, *bounds: Number | None, **named: Number | None) -> Tensor:
    y: Tensor = func(x, *bounds, **named)
    low, high = (*bounds, None, None)[:2]
    source = x
    for name, bound in (("maximum", named.get("min", low)), ("minimum", named.get("max", high))):
        if bound is not None:
            _put(tape, name, y, source, bound)
            source = y
    return y


def _bounded(name: str) -> Form:
    def form(tape: Tape, func: Any, x: Tensor, bound: Number) -> Tensor:
        y: Tensor = func(x, bound)
        _put(tape, name, y, x, bound)
        return y

    return form


def _look_up(tape: Tape, func: Any, table: Tensor, ids: Tensor, *options: Any) -> Tensor:
    import numpy as np

    from hippodrome.ops import _elementwise_kernel as kernel

    y: Tensor = func(table, ids, *options)
    if table.dtype not in kernel.SAMPLES or table.stride(1) != 1 or ids.dtype != torch.int64:
        raise Unheld(f"looking up {ids.dtype} in a table of {table.dtype} has no form on a tape")
    if not ids.is_contiguous():
        raise Unheld("looking up numbers that do not lie in order has no form on a tape")
    arguments = (
        (table.shape[0], table.shape[1], table.stride(0)),
        (ids.data_ptr(), table.data_ptr(), y.data_ptr()),
        np.zeros(1, np.int64),
        kernel.SAMPLES[table.dtype],
    )
    kernel.look_up(0, 0, *arguments)
    tape.note(kernel.look_up, ids.numel(), y.nbytes, arguments)
    return y


def _by_library(tape: Tape, y: Tensor, call: Callable[[], Tensor]) -> Tensor:
    """A product of many rows, which a library does best: a return to Python, small beside it."""
    tape.kept.append(y)
    tape.call(lambda: (y.copy_(call()), None)[1])
    return y


def _many(tape: Tape, func: Any, *arguments: Any) -> Tensor:
    return _by_library(tape, func(*arguments), lambda: func(*arguments))


def _product(tape: Tape, func: Any, *arguments: Tensor, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """x w and x w + bias, where w lies by columns, as the weight of a linear map does."""
    from hippodrome.ops.linear import _numba_kernel as kernel

    bias = arguments[0] if len(arguments) == 3 else None
    x, w = arguments[-2:]
    if w.stride(0) != 1 or x.stride(1) != 1 or beta != 1 or alpha != 1 or x.dtype not in kernel.SAMPLES:
        raise Unheld("a product with a matrix that is no weight of a linear map has no form on a tape")
    if bias is not None and (bias.dim() != 1 or bias.stride(0) != 1):
        raise Unheld("a product with something added that is no bias has no form on a tape")
    y: Tensor = func(*arguments)
    (rows, inner), outer = x.shape, w.shape[1]
    if rows > ROWS:
        return _by_library(tape, y, lambda: func(*arguments))
    sizes = (rows, inner, outer, x.stride(0), w.stride(1))
    addresses = (x.data_ptr(), w.data_ptr(), 0 if bias is None else bias.data_ptr(), y.data_ptr())
    given = (sizes, addresses, kernel.SAMPLES[x.dtype])
    kernel.product(0, 0, *given)
    tape.note(kernel.product, -(-outer // kernel.OUTPUTS), w.nbytes, given)
    return y


FORMS: dict[Any, Form] = {
    aten.add.Tensor: _binary("add"),
    aten.add_.Tensor: _binary("add"),
    aten.sub.Tensor: _difference,
    aten.mul.Tensor: _binary("mul"),
    aten.mul_.Tensor: _binary("mul"),
    aten.mul.Scalar: _binary("mul"),
    aten.div.Tensor: _binary("div"),
    aten.div.Scalar: _binary("div"),
    aten.neg.default: _negative,
    aten.square.default: _square,
    aten.pow.Tensor_Scalar: _square,
    aten.exp.default: _unary("exp"),
    aten.sigmoid.default: _unary("sigmoid"),
    aten.silu.default: _unary("silu"),
    aten.tanh.default: _unary("tanh"),
    aten.relu.default: _unary("relu"),
    aten.rsqrt.default: _unary("rsqrt"),
    aten.gelu.default: _gelu,
    aten.softplus.default: _softplus,
    aten.clone.default: _unary("copy"),
    aten.contiguous.default: _unary("copy"),
    aten._to_copy.default: _unary("copy"),
    aten.copy_.default: _copy,
    aten.cat.default: _joined,
    aten.stack.default: _joined,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _bounded("maximum"),
    aten.minimum.default: _binary("minimum"),
    aten.maximum.default: _binary("maximum"),
    aten.embedding.default: _look_up,
    aten.mm.default: _product,
    aten.addmm.default: _product,
    # Else the tape would hold what the tiles are widened to: all int8 weights in full.
    tiled_.OP: _many,
    **(
        {torch.ops.mkldnn._linear_pointwise.default: _many}
        if hasattr(torch.ops.mkldnn, "_linear_pointwise")
        else {}
    ),
}
"""The form of each operation that a tape holds."""
