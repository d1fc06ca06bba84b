"""Causal long convolution: y_t = sum_l k_l x_{t-l}, each channel with a kernel as long as one likes.

Computed by the fast Fourier transform with zero padding to at least t + l points, so that nothing wraps
around (Gu, Goel, Ré 2021, arXiv 2111.00396, section 2.4).
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.fft_conv import reference, torch_

BACKENDS = (torch_, reference)


def fft_conv(
    x: Float[Tensor, "b t d"], kernel: Float[Tensor, "d l"], *, backend: str | None = None
) -> Float[Tensor, "b t d"]:
    """The causal convolution of every channel of x (b, t, d) with its row of ``kernel`` (d, l), (b, t, d).

    ``kernel[:, 0]`` multiplies the current token. Taps beyond t reach nothing and cost nothing. Transforms
    run in float32 at least, also under autocast; the result has the dtype of x.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    check_arguments("fft_conv", {"x": (x, "b t d"), "kernel": (kernel, "d l")})
    chosen = choose("fft_conv", BACKENDS, backend, x, kernel)
    return chosen.fft_conv(x, kernel)


def flops(b: int, t: int, d: int, length: int) -> int:
    """Multiplications and additions of one forward call: three real transforms of t + l points."""
    points = t + min(t, length)
    log = max(points - 1, 1).bit_length()
    return int(d * points * (2.5 * log * (2 * b + 1) + 3 * b))


def bytes_moved(b: int, t: int, d: int, length: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return (2 * b * t + min(t, length)) * d * item
