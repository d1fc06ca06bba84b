"""State space duality (SSD): a scalar decay per head and a matrix-valued state, written as outer products.

h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T  (p by n),  y_t = h_t C_t + D x_t.

Dao and Gu 2024, "Transformers are SSMs", arXiv 2405.21060: equation 1 with scalar A (section 2.3), section 6.
A is discretised by zero-order hold, B by Euler: dt multiplies B unchanged.
"""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.ssd import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def _chosen(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    resets: Tensor | None,
    chunk: int,
    backend: str | None,
) -> Any:
    """The backend that runs, the arguments having been found to fit."""
    sizes = check_arguments(
        "ssd",
        {
            "x": (x, "b t h p"),
            "dt": (dt, "b t h"),
            "A": (A, "h"),
            "B": (B, "b t g n"),
            "C": (C, "b t g n"),
            "D": (D, "h"),
            "initial_state": (initial_state, "b h p n"),
            "resets": (resets, "b t"),
        },
    )
    if sizes["h"] % sizes["g"]:
        raise ValueError(
            f"ssd: the groups of B and C must divide the heads; got {sizes['g']} groups and "
            f"{sizes['h']} heads. Choose a number of groups that divides the number of heads."
        )
    if chunk < 1:
        raise ValueError(f"ssd: chunk must be at least 1; got {chunk}. Leave it out, or take 64.")
    return choose("ssd", BACKENDS, backend, x, dt, A, B, C, D, initial_state, resets)


def ssd(
    x: Float[Tensor, "b t h p"],
    dt: Float[Tensor, "b t h"],
    A: Float[Tensor, "h"],
    B: Float[Tensor, "b t g n"],
    C: Float[Tensor, "b t g n"],
    D: Float[Tensor, "h"] | None = None,
    initial_state: Float[Tensor, "b h p n"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    chunk: int = 64,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t h p"], Float[Tensor, "b h p n"]]:
    """Outputs y (b, t, h, p) in the dtype of x, and the last state (b, h, p, n) in at least float32.

    bfloat16 x, B and C are read where they lie and their gradients written so; sums, decays, step sizes and
    states are float32 at least.

    Args:
        x: input of each head, (b, t, h, p).
        dt: step sizes as they enter the recurrence (after softplus and clamp), (b, t, h).
        A: continuous decay rate of each head, negative real (after -exp), (h).
        B: input directions, (b, t, g, n); the h heads share them in g groups of neighbours, g divides h.
        C: readout directions, (b, t, g, n).
        D: weight of the input added to the output, (h); none when None.
        initial_state: h before the first step, (b, h, p, n); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        chunk: steps that are handled as one block of matrix products; changes speed, never the result.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    chosen = _chosen(x, dt, A, B, C, D, initial_state, resets, chunk, backend)
    return chosen.ssd(x, dt, A, B, C, D, initial_state, resets, chunk)  # type: ignore[no-any-return]


def ssd_packed(
    xBC: Float[Tensor, "b t e"],
    dt: Float[Tensor, "b t h"],
    A: Float[Tensor, "h"],
    D: Float[Tensor, "h"] | None = None,
    initial_state: Float[Tensor, "b h p n"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    groups: int,
    d_state: int,
    chunk: int = 64,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t h p"], Float[Tensor, "b h p n"]]:
    """``ssd`` of x, B and C side by side in one tensor, as a convolution over all of them leaves them.

    The gradient is one tensor too: three of its parts would first have to be copied together.

    Args:
        xBC: (b, t, h p + 2 groups d_state): x, then B, then C; else as in ``ssd``.
        dt: as in ``ssd``.
        A: as in ``ssd``.
        D: as in ``ssd``.
        initial_state: as in ``ssd``.
        resets: as in ``ssd``.
        groups: g, of heads that share B and C.
        d_state: n.
        chunk: as in ``ssd``.
        backend: as in ``ssd``.

    Raises:
        ValueError: the channels beside B and C do not divide into heads, or as in ``ssd``.
    """
    shared = groups * d_state
    inner = xBC.shape[-1] - 2 * shared
    if inner < 0 or inner % dt.shape[-1]:
        raise ValueError(
            f"ssd_packed: the channels beside B and C must divide into the {dt.shape[-1]} heads of dt; got "
            f"{xBC.shape[-1]} channels, of which B and C take {shared} each. Check groups and d_state."
        )
    x, B, C = xBC.split([inner, shared, shared], -1)
    x = x.unflatten(-1, (dt.shape[-1], inner // dt.shape[-1]))
    B, C = B.unflatten(-1, (groups, d_state)), C.unflatten(-1, (groups, d_state))
    chosen = _chosen(x, dt, A, B, C, D, initial_state, resets, chunk, backend)
    if chosen is triton_ or chosen is numba_:
        return chosen.ssd_packed(xBC, dt, A, D, initial_state, resets, groups, d_state, chunk)
    return chosen.ssd(x, dt, A, B, C, D, initial_state, resets, chunk)  # type: ignore[no-any-return]


def flops(b: int, t: int, h: int, p: int, n: int, g: int = 1, chunk: int = 64) -> int:
    """Multiplications and additions of one forward call in its chunked form."""
    scores = 2 * t * chunk * g * n
    within = 2 * t * chunk * h * p
    states = 2 * t * h * p * n
    return b * (scores + within + 2 * states)


def bytes_moved(b: int, t: int, h: int, p: int, n: int, g: int = 1, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return b * (t * (2 * h * p + h + 2 * g * n) + 2 * h * p * n) * item
