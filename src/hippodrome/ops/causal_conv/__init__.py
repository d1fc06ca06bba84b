"""Causal depthwise convolution with few taps, then a bias and silu: the short mixing before a state space layer.

y[t, d] = act(bias[d] + sum_k weight[d, k] x[t - (w - 1) + k, d]), so that the last tap multiplies the current token
(Gu and Dao 2023, arXiv 2312.00752, section 3.4 and figure 3).
"""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from hippodrome.ops._door import choose
from hippodrome.ops.causal_conv import reference, torch_

BACKENDS = (torch_, reference)


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
        resets: (b, t); where True, that token and all after it see nothing of what came before it. In the final
            state, inputs before the last reset stand as zeros.
        activation: "silu" or None.
        backend: force one of "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: shapes do not fit each other, an unknown activation, or no backend can run these tensors.
    """
    b, t, d = x.shape
    w = weight.shape[-1]
    if activation not in (None, "silu"):
        raise ValueError(f"causal_conv: activation must be None or 'silu'; got {activation!r}.")
    expected = {
        "weight": (weight, (d, w)),
        "bias": (bias, (d,)),
        "initial_state": (initial_state, (b, w - 1, d)),
        "resets": (resets, (b, t)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(
                f"causal_conv: with x of shape {tuple(x.shape)} and {w} taps, {name} must be {shape}; got "
                f"{tuple(tensor.shape)}. The letters are b t d (x), d w (weight), d (bias), b w-1 d (state)."
            )
    chosen = choose("causal_conv", BACKENDS, backend, x, weight, bias, initial_state, resets)
    return chosen.causal_conv(x, weight, bias, initial_state, resets, activation == "silu")


def flops(b: int, t: int, d: int, w: int) -> int:
    """Multiplications and additions of one forward call, the activation left out."""
    return 2 * b * t * d * w


def bytes_moved(b: int, t: int, d: int, w: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return (b * (2 * t + 2 * (w - 1)) * d + d * (w + 1)) * item
