"""Causal depthwise convolution with few taps, then a bias and silu: the short mixing before a recurrence.

y[t, d] = act(bias[d] + sum_k weight[d, k] x[t - (w - 1) + k, d]): the last tap multiplies the current token
(Gu and Dao 2023, "Mamba", arXiv 2312.00752, section 3.4 and figure 3; the shift of Fu et al. 2022, "H3",
arXiv 2212.14052, section 3, made a free filter).
"""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.causal_conv import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def causal_conv(
    x: Float[Tensor, "b t d"],
    weight: Float[Tensor, "d w"],
    bias: Float[Tensor, "d"] | None = None,
    initial_state: Float[Tensor, "b w_1 d"] | None = None,
    resets: Bool[Tensor, "b t"] | None = None,
    *,
    activation: Literal["silu"] | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b w_1 d"]]:
    """Outputs (b, t, d) in the dtype of x, and the last w - 1 raw inputs (b, w-1, d) in at least float32.

    Args:
        x: input, (b, t, d).
        weight: taps of each channel, oldest first, (d, w); the last multiplies the current token.
        bias: added before the activation, (d).
        initial_state: the w - 1 raw inputs before the first token, oldest first, (b, w-1, d); zero when None.
        resets: (b, t); where True, that token and all after it see nothing of what came before it. In the
            final state, inputs before the last reset stand as zeros.
        activation: "silu" or None.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, the activation is unknown, or no backend can run these
            tensors; the message says why.
    """
    if activation not in (None, "silu"):
        raise ValueError(f"causal_conv: activation must be None or 'silu'; got {activation!r}.")
    check_arguments(
        "causal_conv",
        {
            "x": (x, "b t d"),
            "weight": (weight, "d w"),
            "bias": (bias, "d"),
            "initial_state": (initial_state, "b w-1 d"),
            "resets": (resets, "b t"),
        },
        {"w-1": weight.shape[-1] - 1},
    )
    chosen = choose("causal_conv", BACKENDS, backend, x, weight, bias, initial_state, resets)
    return chosen.causal_conv(x, weight, bias, initial_state, resets, activation == "silu")


def flops(b: int, t: int, d: int, w: int) -> int:
    """Multiplications and additions of one forward call, the activation left out."""
    return 2 * b * t * d * w


def bytes_moved(b: int, t: int, d: int, w: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return (b * (2 * t + 2 * (w - 1)) * d + d * (w + 1)) * item
