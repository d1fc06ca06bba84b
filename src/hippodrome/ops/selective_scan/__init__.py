"""Selective scan: h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = (C_t . h_t + D u_t) silu(z_t).

The input-dependent diagonal recurrence of Mamba (Gu, Dao 2023, arXiv 2312.00752, equations 2a-2b and
algorithm 2: zero-order hold for A, Euler for B), one state of size n for each channel. With a complex A, of
whose conjugate pairs one half is held, y_t = (2 Re(C_t . h_t) + D u_t) silu(z_t).
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.selective_scan import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)

Vectors = (
    Float[Tensor, "b t n"]
    | Float[Tensor, "b t g n"]
    | Float[Tensor, "d n"]
    | Float[Tensor, "b t n 2"]
    | Float[Tensor, "b t g n 2"]
    | Float[Tensor, "d n 2"]
)


def selective_scan(
    u: Float[Tensor, "b t d"],
    dt: Float[Tensor, "b t d"],
    A: Float[Tensor, "d n"] | Float[Tensor, "d n 2"],
    B: Vectors,
    C: Vectors,
    D: Float[Tensor, "d"] | None = None,
    z: Float[Tensor, "b t d"] | None = None,
    dt_bias: Float[Tensor, "d"] | None = None,
    initial_state: Float[Tensor, "b d n"] | Float[Tensor, "b d n 2"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    softplus: bool = False,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d n"] | Float[Tensor, "b d n 2"]]:
    """Outputs y (b, t, d) in u's dtype and the final state (b, d, n), at least float32.

    The state of channel i follows h_t = exp(dt_t A_i) h_{t-1} + dt_t B_t u_t and is read by y_t = C_t . h_t.
    A complex A, (d, n, 2) with real and imaginary part in the last axis, makes B, C and the state complex in
    the same way, and y_t = 2 Re(C_t . h_t).

    Args:
        u: inputs, (b, t, d).
        dt: step size of each step and channel, (b, t, d), before ``dt_bias`` and softplus.
        A: decay rates as they enter the recurrence (negative, after -exp), (d, n), or (d, n, 2) if complex.
        B: input vectors, (b, t, n), or (b, t, g, n) where each of g groups serves d / g adjoining channels,
            or (d, n) where they are constant in time; with a last axis of 2 beside a complex A.
        C: output vectors, in any of the same shapes; grouped as B where both vary.
        D: skip from u to y, (d).
        z: gate, (b, t, d): y is multiplied by silu(z).
        dt_bias: added to dt, (d).
        initial_state: h before the first step, (b, d, n), or (b, d, n, 2); zero when None.
        resets: (b, t); where True, the state before that step is replaced by zero.
        softplus: put dt + dt_bias through log(1 + exp(.)).
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    pair = " 2" if A.dim() == 3 else ""
    vectors, state = f"b t n{pair} | b t g n{pair} | d n{pair}", f"b d n{pair}"
    sizes = check_arguments(
        "selective_scan",
        {
            "u": (u, "b t d"),
            "dt": (dt, "b t d"),
            "A": (A, f"d n{pair}"),
            "B": (B, vectors),
            "C": (C, vectors),
            "D": (D, "d"),
            "z": (z, "b t d"),
            "dt_bias": (dt_bias, "d"),
            "initial_state": (initial_state, state),
            "resets": (resets, "b t"),
        },
    )
    if B.dim() != C.dim() and not torch_.constant(A, B, C):
        raise ValueError(
            f"selective_scan: B and C must be grouped alike; got {tuple(B.shape)} and {tuple(C.shape)}."
        )
    if sizes["d"] % sizes.get("g", 1):
        raise ValueError(
            f"selective_scan: the channels d must divide into the groups of B and C; got d = {sizes['d']} "
            f"and g = {sizes['g']}. Choose a number of groups that divides d."
        )
    arguments = (u, dt, A, B, C, D, z, dt_bias, initial_state, resets)
    chosen = choose("selective_scan", BACKENDS, backend, *arguments)
    return chosen.selective_scan(*arguments, softplus)


def flops(b: int, t: int, d: int, n: int) -> int:
    """Operations of one forward call; an exponential, an addition, a multiplication count one each."""
    return b * t * d * (7 * n + 8)


def bytes_moved(b: int, t: int, d: int, n: int, g: int = 1, item: int = 4) -> int:
    """Bytes one forward call with a gate must read and write at least."""
    return item * (b * t * (4 * d + 2 * g * n) + 2 * b * d * n + d * (n + 2))
