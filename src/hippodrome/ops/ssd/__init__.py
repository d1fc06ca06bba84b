"""State space duality (SSD): a scalar decay per head and a matrix-valued state, written as outer products.

h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T  (p by n),  y_t = h_t C_t + D x_t.  (Dao and Gu 2024, "Transformers are
SSMs", arXiv 2405.21060, section 6 and equation 19 for the recurrence's matrix form.) A is zero-order hold, B is
Euler: dt multiplies B unchanged.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._door import choose
from hippodrome.ops.ssd import reference, torch_

BACKENDS = (torch_, reference)


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
        backend: force one of "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: shapes do not fit each other, or no backend can run these tensors.
    """
    b, t, heads, p = x.shape
    groups, n = B.shape[2:]
    if heads % groups:
        raise ValueError(
            f"ssd: the number of groups must divide the number of heads; got B with {groups} groups and x with "
            f"{heads} heads. Choose groups among the divisors of {heads}."
        )
    if chunk < 1:
        raise ValueError(f"ssd: chunk must be at least 1; got {chunk}. Take 64, or leave it out.")
    expected = {
        "dt": (dt, (b, t, heads)),
        "A": (A, (heads,)),
        "B": (B, (b, t, groups, n)),
        "C": (C, (b, t, groups, n)),
        "D": (D, (heads,)),
        "initial_state": (initial_state, (b, heads, p, n)),
        "resets": (resets, (b, t)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"ssd: with x of shape {tuple(x.shape)} and B of shape {tuple(B.shape)}, {name} must be {shape}; "
                f"got {tuple(tensor.shape)}. The letters are b t h p (x), b t h (dt), h (A, D), b t g n (B, C)."
            )
    chosen = choose("ssd", BACKENDS, backend, x, dt, A, B, C, D, initial_state, resets)
    return chosen.ssd(x, dt, A, B, C, D, initial_state, resets, chunk)


def flops(b: int, t: int, h: int, p: int, n: int, g: int = 1, chunk: int = 64) -> int:
    """Multiplications and additions of one forward call in its chunked form."""
    scores = 2 * t * chunk * g * n
    within = 2 * t * chunk * h * p
    states = 2 * t * h * p * n
    return b * (scores + within + 2 * states)


def bytes_moved(b: int, t: int, h: int, p: int, n: int, g: int = 1, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return b * (t * (2 * h * p + h + 2 * g * n) + 2 * h * p * n) * item
