"""One token of the causal convolution, its window shifted in place.

``ops.causal_conv`` on a sequence of one, for decoding loops that own their state. No gradients.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose, watched
from hippodrome.ops.causal_conv_update import numba_, reference, torch_, triton_

BACKENDS = (triton_, numba_, torch_, reference)


def causal_conv_update(
    x: Float[Tensor, "b d"],
    weight: Float[Tensor, "d w"],
    bias: Float[Tensor, "d"] | None,
    state: Float[Tensor, "b w_1 d"],
    *,
    activation: Literal["silu"] | None = None,
    backend: str | None = None,
) -> Float[Tensor, "b d"]:
    """The output for one token (b, d) in the dtype of x; ``state`` is overwritten with the inputs up to it.

    Args:
        x: input, (b, d).
        weight: taps of each channel, oldest first, (d, w); the last multiplies x.
        bias: added before the activation, (d).
        state: the w - 1 inputs before x, oldest first, (b, w-1, d), in float32 or wider.
        activation: "silu" or None.
        backend: force one of "triton", "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, the activation is unknown, or no backend can run these
            tensors; the message says why.
    """
    if activation not in (None, "silu"):
        raise ValueError(f"causal_conv_update: activation must be None or 'silu'; got {activation!r}.")
    d, w = weight.shape
    if (
        x.shape != (state.shape[0], d)
        or state.shape[1:] != (w - 1, d)
        or (bias is not None and bias.shape != (d,))
    ):
        check_arguments(
            "causal_conv_update",
            {"x": (x, "b d"), "weight": (weight, "d w"), "bias": (bias, "d"), "state": (state, "b w-1 d")},
            {"w-1": w - 1},
        )
    arguments = (x, weight, bias, state)
    if backend is None and not watched() and numba_.refusal(*arguments) is None:
        return numba_.causal_conv_update(*arguments, activation == "silu")
    chosen = choose("causal_conv_update", BACKENDS, backend, *arguments)
    y: Tensor = chosen.causal_conv_update(*arguments, activation == "silu")
    return y


def flops(b: int, d: int, w: int) -> int:
    """Multiplications and additions of one call, the activation left out."""
    return 2 * b * d * w


def bytes_moved(b: int, d: int, w: int, item: int = 4) -> int:
    """Bytes one call must read and write at least."""
    return item * (2 * b * d * w + d * (w + 1))
