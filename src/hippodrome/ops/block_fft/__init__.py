"""The Fourier transform along time as a product of small matrices: blocks, with twiddle factors between them.

n = m_1 m_2 ... m_s. An index in is j = j_1 n/m_1 + j', its leading digit first; one out is k = k_1 + m_1 k'.
X_{k_1 + m_1 k'} = sum_{j'} [ e^(-2 pi i k_1 j' / n) sum_{j_1} M_1[k_1, j_1] x_{j_1, j'} ] of the rest's
transform, and so on with the digits of j' (Cooley, Tukey 1965, "An algorithm for the machine calculation of
complex Fourier series", Mathematics of Computation 19). With M_i the matrices of small Fourier transforms
that is the Fourier transform; with others it is what FlashButterfly learns (Fu et al. 2023, "Simple
hardware-efficient long convolutions for sequence modeling", arXiv 2302.06646, section 4).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._door import choose
from hippodrome.ops.block_fft import reference, torch_

BACKENDS = (torch_, reference)


def block_fft(
    x: Float[Tensor, "b n d 2"],
    matrices: Sequence[Float[Tensor, "_ _ 2"]],
    *,
    inverse: bool = False,
    backend: str | None = None,
) -> Float[Tensor, "b n d 2"]:
    """The transform of every channel of x along time, (b, n, d, 2), in float32 or wider.

    Args:
        x: complex numbers as pairs, (b, n, d, 2).
        matrices: the small transforms, (m_i, m_i, 2) each, row = frequency; n is the product of the m_i.
        inverse: turn the twiddle factors the other way and divide by n; with matrices of
            ``dft(m, inverse=True)`` that is the inverse Fourier transform.
        backend: force one of "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: the matrices are not square pairs whose sizes multiply to n, or no backend can run these.
    """
    sizes = [m.shape[0] for m in matrices]
    square = all(m.dim() == 3 and m.shape == (m.shape[0], m.shape[0], 2) for m in matrices)
    pairs = x.dim() == 4 and x.shape[3] == 2 and x.is_floating_point()
    if not (pairs and square and sizes and math.prod(sizes) == x.shape[1]):
        raise ValueError(
            "block_fft: x holds pairs, (b, n, d, 2), each matrix too, (m, m, 2), and the sizes m multiply to "
            f"n; got x {x.dtype} {tuple(x.shape)} and matrices {[tuple(m.shape) for m in matrices]}. Pad x "
            "with zeros to a product of the sizes."
        )
    chosen = choose("block_fft", BACKENDS, backend, x, *matrices)
    y: Tensor = chosen.block_fft(x, tuple(matrices), inverse)
    return y


def dft(size: int, *, inverse: bool = False, dtype: torch.dtype = torch.float32) -> Float[Tensor, "m m 2"]:
    """The matrix of a Fourier transform of ``size`` points, e^(-2 pi i j k / m), or its conjugate."""
    steps = torch.arange(size, dtype=torch.float64)
    # Angles are taken of whole numbers below the size, so that all are exact to the last place.
    angle = 2 * math.pi / size * (steps[:, None] * steps % size)
    return torch.stack([angle.cos(), angle.sin() if inverse else -angle.sin()], -1).to(dtype)


def flops(b: int, n: int, d: int, sizes: Sequence[int]) -> int:
    """Multiplications and additions of one forward call."""
    return b * d * n * (8 * sum(sizes) + 6 * (len(sizes) - 1))


def bytes_moved(b: int, n: int, d: int, sizes: Sequence[int], item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return item * (4 * b * n * d + 2 * sum(m * m for m in sizes))
