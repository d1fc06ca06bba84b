"""Convolutional scan: a diagonal recurrence over feature maps, written and read by convolutions over space.

x_k = a_k x_{k-1} + g_k (B * u_k), y_k = 2 Re (C * x_k), with * a convolution over the rows and columns of a
frame, and a and g one complex number for each channel of the state, the same at every point (Smith, De Mello,
Kautz, Linderman, Byeon 2023, "Convolutional state space models for long-range spatiotemporal modeling", arXiv
2310.19694, section 3). The state at a point depends on inputs no further away than the taps of B reach,
however many steps there are.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.conv_scan import reference, torch_

BACKENDS = (torch_, reference)


def conv_scan(
    u: Float[Tensor, "b t i j d"],
    a: Float[Tensor, "b t n 2"] | Float[Tensor, "n 2"],
    gain: Float[Tensor, "b t n 2"] | Float[Tensor, "n 2"],
    B: Float[Tensor, "n d k k 2"],
    C: Float[Tensor, "o n w w 2"],
    initial_state: Float[Tensor, "b i j n 2"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t i j o"], Float[Tensor, "b i j n 2"]]:
    """Outputs y (b, t, i, j, o) in u's dtype, and the last state (b, i, j, n, 2), at least float32.

    Args:
        u: frames of i rows and j columns with d channels, (b, t, i, j, d).
        a: what multiplies the state at each step, (b, t, n, 2), or (n, 2) where it is constant in time.
        gain: what multiplies B * u at each step, in the shape of a.
        B: taps of the convolution in, (n, d, k, k, 2), k odd: the state at (p, q) takes in
            B[:, :, r, s] u at (p + r - k // 2, q + s - k // 2), zeros outside of the frame.
        C: taps of the convolution out, (o, n, w, w, 2), w odd, likewise.
        initial_state: x before the first step, (b, i, j, n, 2); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        backend: force one of "torch", "reference"; None takes the first that can run.

    The trailing axis of 2 holds real and imaginary part.

    Raises:
        ValueError: a shape or dtype does not fit, a number of taps is even, or no backend can run these
            tensors; the message says why.
    """
    check_arguments(
        "conv_scan",
        {
            "u": (u, "b t i j d"),
            "a": (a, "n 2 | b t n 2"),
            "gain": (gain, "n 2" if a.dim() == 2 else "b t n 2"),
            "B": (B, "n d k k 2"),
            "C": (C, "o n w w 2"),
            "initial_state": (initial_state, "b i j n 2"),
            "resets": (resets, "b t"),
        },
    )
    for name, taps in (("B", B.shape[2]), ("C", C.shape[2])):
        if taps % 2 == 0:
            raise ValueError(
                f"conv_scan: {name} has an odd number of taps along each axis, so that one is the point "
                f"itself; got {taps}. Take {taps + 1}."
            )
    chosen = choose("conv_scan", BACKENDS, backend, u, a, gain, B, C, initial_state, resets)
    return chosen.conv_scan(u, a, gain, B, C, initial_state, resets)


def flops(b: int, t: int, i: int, j: int, d: int, n: int, o: int, k: int = 3, w: int = 3) -> int:
    """Real multiplications and additions of one forward call, taps outside of the frame counted too."""
    return b * t * i * j * (4 * n * d * k * k + 14 * n + 4 * n * o * w * w)


def bytes_moved(
    b: int,
    t: int,
    i: int,
    j: int,
    d: int,
    n: int,
    o: int,
    k: int = 3,
    w: int = 3,
    item: int = 4,
    *,
    constant: bool = True,
) -> int:
    """Bytes one forward call must read and write at least; ``constant`` where a and gain are (n, 2)."""
    steps = 4 * n * (1 if constant else b * t)
    return item * (b * t * i * j * (d + o) + 4 * b * i * j * n + steps + 2 * n * (d * k * k + o * w * w))
