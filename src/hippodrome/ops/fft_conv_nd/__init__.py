"""Global convolution over a grid: y_p = sum_q k_q x_{p-q+o}, each channel with a kernel as large as the grid.

``o`` is where lag zero stands in the kernel: 0 on an axis for a causal kernel, the middle for a two-sided
one. Computed by one real fast Fourier transform in all axes, zero padded so that nothing wraps around
(Nguyen et al. 2022, "S4ND: modeling images and videos as multidimensional signals using state spaces",
arXiv 2210.06583, section 4).
"""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._door import choose
from hippodrome.ops.fft_conv_nd import reference, torch_

BACKENDS = (torch_, reference)


def fft_conv_nd(
    x: Float[Tensor, "b *grid d"],
    kernel: Float[Tensor, "d *lags"],
    origin: Sequence[int] | None = None,
    *,
    backend: str | None = None,
) -> Float[Tensor, "b *grid d"]:
    """The convolution of every channel of x (b, g1, ..., gm, d) with its kernel (d, l1, ..., lm).

    Args:
        x: values on the grid; outside of it they are zero.
        kernel: the taps; sizes may differ from the grid's.
        origin: index of lag zero on each axis, from 0 to l - 1; zeros when None.
        backend: force one of "torch", "reference"; None takes the first that can run.

    Transforms run in float32 at least, also under autocast; the result has the dtype of x.

    Raises:
        ValueError: a shape, a dtype or an origin does not fit, or no backend can run these tensors.
    """
    axes = x.dim() - 2
    place = tuple(origin) if origin is not None else (0,) * axes
    fits = axes >= 1 and kernel.dim() == axes + 1 and kernel.shape[0] == x.shape[-1]
    if not fits or not x.is_floating_point() or not kernel.is_floating_point():
        raise ValueError(
            "fft_conv_nd: x has the axes (b, g1, ..., gm, d) and kernel (d, l1, ..., lm), with the same d "
            f"and m, both of real floating numbers; got {x.dtype} {tuple(x.shape)} and {kernel.dtype} "
            f"{tuple(kernel.shape)}. Channels come last in x and first in the kernel."
        )
    if len(place) != axes or any(not 0 <= o < size for o, size in zip(place, kernel.shape[1:], strict=True)):
        raise ValueError(
            f"fft_conv_nd: origin gives the index of lag zero on each of the {axes} axes of a kernel of "
            f"sizes {tuple(kernel.shape[1:])}; got {place}. Take 0 on an axis for a causal kernel, its "
            "middle for a two-sided one."
        )
    chosen = choose("fft_conv_nd", BACKENDS, backend, x, kernel)
    return chosen.fft_conv_nd(x, kernel, place)


def flops(b: int, grid: Sequence[int], d: int, lags: Sequence[int]) -> int:
    """Multiplications and additions of one forward call: real transforms of the padded grid."""
    points = math.prod(g + k - 1 for g, k in zip(grid, lags, strict=True))
    return int(d * points * (2.5 * max(points - 1, 1).bit_length() * (2 * b + 1) + 3 * b))


def bytes_moved(b: int, grid: Sequence[int], d: int, lags: Sequence[int], item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return (2 * b * math.prod(grid) + math.prod(lags)) * d * item
