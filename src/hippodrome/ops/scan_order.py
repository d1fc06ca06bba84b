"""Scan orders: in which orders the points of a grid are read as sequences, and how they are put back."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BACK = "-back"
"""Behind the name of an order: the same from its end."""


class ScanTable(NamedTuple):
    """Sequences over the t points of a grid, and their inverse."""

    order: Int[Tensor, "l k"]
    """Of k sequences of l tokens the point at each place, C order; -1 where there is none, which reads 0."""
    inverse: Int[Tensor, "t m"]
    """Where each point stands in ``order`` laid out flat; each stands in m places."""


def _raster(points: Tensor) -> list[Tensor]:
    return [points.flatten()]


def _column(points: Tensor) -> list[Tensor]:
    return [points.T.flatten()]


def _diagonal(points: Tensor) -> list[Tensor]:
    rows, columns = points.shape
    i, j = torch.arange(rows, device="cpu")[:, None], torch.arange(columns, device="cpu")
    return [points.flatten()[((i + j) * rows + i).flatten().argsort()]]


def _antidiagonal(points: Tensor) -> list[Tensor]:
    return _diagonal(points.flip(1))


def _snake(points: Tensor) -> list[Tensor]:
    turned = points.clone()
    turned[1::2] = turned[1::2].flip(1)
    return [turned.flatten()]


def _snake_column(points: Tensor) -> list[Tensor]:
    return _snake(points.T)


def _atrous(points: Tensor) -> list[Tensor]:
    """Every second point of every second row, which makes four sequences; odd sides are filled up below."""
    rows, columns = points.shape
    even = torch.full((rows + rows % 2, columns + columns % 2), -1, device="cpu")
    even[:rows, :columns] = points
    return [
        even[0::2, 0::2].flatten(),
        even[1::2, 0::2].T.flatten(),
        even[0::2, 1::2].flatten(),
        even[1::2, 1::2].T.flatten(),
    ]


_ORDERS = {
    "raster": _raster,
    "column": _column,
    "diagonal": _diagonal,
    "antidiagonal": _antidiagonal,
    "snake": _snake,
    "snake-column": _snake_column,
    "atrous": _atrous,
}

SETS = {
    "cross": ("raster", "column", f"raster{BACK}", f"column{BACK}"),
    "diagonals": ("diagonal", "antidiagonal", f"diagonal{BACK}", f"antidiagonal{BACK}"),
    "snakes": ("snake", "snake-column", f"snake{BACK}", f"snake-column{BACK}"),
    "atrous": ("atrous",),
}
"""Names of several orders at once."""

ORDERS = (*_ORDERS, *(name + BACK for name in _ORDERS))
"""The single orders. "atrous" is four sequences of a quarter of the points each."""


def scan_table(orders: Sequence[str], sizes: Sequence[int]) -> ScanTable:
    """The sequences of these orders over a grid of rows and columns, side by side.

    "raster" reads row by row, "column" column by column, "diagonal" along the diagonals from the top right to
    the bottom left, "antidiagonal" along the others, "snake" and "snake-column" as the first two with every
    second row or column backwards. "cross" is the first two both ways (the cross-scan of Liu et al. 2024,
    "VMamba: visual state space model", arXiv 2401.10166); "atrous" skips every second point along both axes,
    which makes four sequences that share no point (the skip sampling of Pei, Huang, Xu 2024,
    "EfficientVMamba: atrous selective scan for light weight visual Mamba", arXiv 2403.09977), two of them by
    rows and two by columns. The tensors are made on the default device.

    Args:
        orders: names of ``ORDERS`` and ``SETS``.
        sizes: rows and columns.

    Raises:
        ValueError: no order or one that there is not, a grid that is none, sequences that differ in length,
            or orders that read some points more often than others.
    """
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"A scan order reads a grid of rows and columns, 1 or more each; got {list(sizes)}.")
    names = [one for name in orders for one in SETS.get(name, (name,))]
    unknown = [name for name in names if name not in ORDERS]
    if unknown or not names:
        raise ValueError(
            f"A scan reads a grid in one order or more of {', '.join(ORDERS)} (or {', '.join(SETS)}); got "
            f"{unknown[0] if unknown else 'none'!r}."
        )
    points = torch.arange(sizes[0] * sizes[1], device="cpu").view(*sizes)
    sequences: list[Tensor] = []
    for name in names:
        forth = _ORDERS[name.removesuffix(BACK)](points)
        sequences += [one.flip(0) for one in forth] if name.endswith(BACK) else forth
    if len({len(one) for one in sequences}) > 1:
        raise ValueError(
            f"Sequences that are read side by side have one length; got {', '.join(names)}, of which atrous "
            "is four of a quarter of the points. Take it alone, or leave it out."
        )
    order = torch.stack(sequences, 1)
    flat = order.flatten()
    places = flat.argsort(stable=True)[int((flat < 0).sum()) :]
    here = torch.get_default_device()
    return ScanTable(order.to(here), places.view(points.numel(), -1).to(here))


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """x[:, places]: (b, t, d) to (b, r, d). Of all ways to say it, the one whose kernel copies whole rows."""
    first = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    return x.flatten(0, 1).index_select(0, (first + places).flatten()).unflatten(0, (x.shape[0], -1))


def _gather(x: Tensor, table: ScanTable) -> Tensor:
    """(b, t, d) to (b, l, k, d)."""
    flat = table.order.flatten()
    if table.inverse.numel() == flat.numel():
        read = _rows(x, flat)
    else:
        read = _rows(x, flat.clamp(min=0)).masked_fill(flat[:, None] < 0, 0.0)
    return read.unflatten(1, table.order.shape)


def _gather_back(y: Tensor, table: ScanTable) -> Tensor:
    """(b, l, k, d) to (b, t, d)."""
    flat = y.flatten(1, 2)
    first, *others = table.inverse.unbind(1)
    total = _rows(flat, first)
    for places in others:  # one copy after the other is half the time of all copies and a sum
        total = total + _rows(flat, places)
    return total


class _Scan(torch.autograd.Function):
    """Reading and putting back are each other's gradient; the one PyTorch would find adds up in a scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return _gather(x, ScanTable(order, inverse))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Merge.apply(grad, *ctx.saved_tensors), None, None


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return _gather_back(y, ScanTable(order, inverse))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Scan.apply(grad, *ctx.saved_tensors), None, None


def scan(x: Float[Tensor, "b t d"], table: ScanTable) -> Float[Tensor, "b l k d"]:
    """The points of grids as k sequences each, side by side for each place; zeros where there is no point.

    Its gradient is ``merge``.
    """
    return _Scan.apply(x, *table)


def merge(y: Float[Tensor, "b l k d"], table: ScanTable) -> Float[Tensor, "b t d"]:
    """Sequences put back onto the grid, the m values of a point summed: ``merge(scan(x))`` is m x.

    Its gradient is ``scan``.
    """
    return _Merge.apply(y, *table)
