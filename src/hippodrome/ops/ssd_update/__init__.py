"""One token of SSD, its state overwritten: h = exp(dt A) h + dt x B^T, y = h C + D x in each head.

``ops.ssd`` on a sequence of one, for decoding loops that own their state. No gradients.
"""

import math

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose, watched
from hippodrome.ops.ssd_update import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def ssd_update(
    x: Float[Tensor, "b h p"],
    dt: Float[Tensor, "b h"],
    A: Float[Tensor, "h"],
    B: Float[Tensor, "b g n"],
    C: Float[Tensor, "b g n"],
    D: Float[Tensor, "h"] | None,
    dt_bias: Float[Tensor, "h"] | None,
    state: Float[Tensor, "b h p n"],
    *,
    softplus: bool = False,
    low: float = 0.0,
    high: float = math.inf,
    backend: str | None = None,
) -> Float[Tensor, "b h p"]:
    """The output for one token (b, h, p) in the dtype of x; ``state`` (b, h, p, n) is overwritten.

    Arguments as in ``ops.ssd``, without the axis of time, but for the step sizes, which are made here.

    Args:
        x: input of each head, (b, h, p).
        dt: step sizes, (b, h), before ``dt_bias``, softplus and the bounds.
        A: decay rate of each head, negative, (h).
        B: input directions, (b, g, n).
        C: readout directions, (b, g, n).
        D: weight of the input added to the output, (h).
        dt_bias: added to dt, (h).
        state: h before the token, in float32 or wider, (b, h, p, n).
        softplus: put dt + dt_bias through log(1 + exp(.)).
        low: bound below the step sizes.
        high: bound above them.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, or no backend can run these tensors; the message says why.
    """
    b, h, p, n = state.shape
    g = B.shape[1]
    if not (
        x.shape == (b, h, p)
        and dt.shape == (b, h)
        and A.shape == (h,)
        and B.shape == C.shape == (b, g, n)
        and g > 0
        and h % g == 0
        and (D is None or D.shape == (h,))
        and (dt_bias is None or dt_bias.shape == (h,))
    ):
        _refuse(x, dt, A, B, C, D, dt_bias, state)
    arguments = (x, dt, A, B, C, D, dt_bias, state)
    if backend is None and not watched() and numba_.refusal(*arguments) is None:
        return numba_.ssd_update(*arguments, softplus, low, high)
    chosen = choose("ssd_update", BACKENDS, backend, *arguments)
    y: Tensor = chosen.ssd_update(*arguments, softplus, low, high)
    return y


def _refuse(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    state: Tensor,
) -> None:
    """Say what is wrong with shapes. The door, called in each layer of each token, only finds that out."""
    sizes = check_arguments(
        "ssd_update",
        {
            "state": (state, "b h p n"),
            "x": (x, "b h p"),
            "dt": (dt, "b h"),
            "A": (A, "h"),
            "B": (B, "b g n"),
            "C": (C, "b g n"),
            "D": (D, "h"),
            "dt_bias": (dt_bias, "h"),
        },
    )
    raise ValueError(
        f"ssd_update: the heads must divide into the groups of B and C; got h = {sizes['h']} and g = "
        f"{sizes['g']}. Choose a number of groups that divides h."
    )


def flops(b: int, h: int, p: int, n: int) -> int:
    """Multiplications and additions of one call."""
    return b * h * p * (5 * n + 2)


def bytes_moved(b: int, h: int, p: int, n: int, g: int = 1, item: int = 4) -> int:
    """Bytes one call must read and write at least."""
    return item * (b * (h * (2 * p * n + 2 * p + 1) + 2 * g * n) + 3 * h)
