"""Long convolution of an input of any length in blocks, causal or two-sided, with a state between calls.

y_t = sum_{j<l} k_j x_{t-j} + sum_{j<m} back_j x_{t+1+j}. The state of a causal convolution is its last l - 1
inputs. Handed on, they make an input cut in pieces give what it gives as one (state passing: Fu et al. 2022,
"Hungry hungry hippos", arXiv 2212.14052, there for the state of a recurrence). Inside a call,
time is cut into blocks of overlapping input (overlap-save: Stockham 1966, "High-speed convolution and
correlation", AFIPS 28), a kernel longer than a block into parts, and rows and channels into groups, so that
what a call needs beyond its inputs and outputs does not grow with t. The second kernel begins at the next
token: the convention that backbones.bidirectional calls "offset".
"""

from jaxtyping import Float
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.block_conv import blocks_, reference, torch_

BACKENDS = (blocks_, torch_, reference)
SHORT = 2048
"""Rows up to this length are faster by blocks."""
LARGEST = 1 << 27
"""Numbers of the padded input that may be transformed at once: half a GiB of float32."""


def block_conv(
    x: Float[Tensor, "b t d"],
    kernel: Float[Tensor, "d l"],
    initial_state: Float[Tensor, "b l_1 d"] | None = None,
    back: Float[Tensor, "d m"] | None = None,
    ahead: Float[Tensor, "b m d"] | None = None,
    *,
    block: int | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b l_1 d"]]:
    """Outputs (b, t, d) in the dtype of x, and the last l - 1 inputs (b, l-1, d) in at least float32.

    Args:
        x: input, (b, t, d).
        kernel: taps of each channel, (d, l); ``kernel[:, 0]`` multiplies the current token.
        initial_state: the l - 1 inputs before the first token, oldest first, (b, l-1, d); zero when None.
        back: taps on later tokens, (d, m); ``back[:, 0]`` multiplies the next one.
        ahead: the m inputs that follow the last token, (b, m, d); zero when None. Only with ``back``.
        block: the most outputs that one transform computes, and the most taps it takes; None chooses. Taps
            beyond it cost another pass over the input for as many again.
        backend: force one of "blocks", "torch", "reference"; None takes blocks, or one transform of the whole
            (torch) where that is faster and its memory is bounded (``one_piece``).

    Transforms run in float32 at least, also under autocast.

    Raises:
        ValueError: a shape or dtype does not fit, ``ahead`` comes without ``back``, a block is below 1, or no
            backend can run these tensors; the message says why.
    """
    if block is not None and block < 1:
        raise ValueError(f"block_conv: a block has 1 output or more; got block={block}. None chooses.")
    if ahead is not None and back is None:
        raise ValueError(
            "block_conv: inputs ahead have no taps without a kernel `back` (d, m); hand both or neither."
        )
    check_arguments(
        "block_conv",
        {
            "x": (x, "b t d"),
            "kernel": (kernel, "d l"),
            "initial_state": (initial_state, "b l-1 d"),
            "back": (back, "d m"),
            "ahead": (ahead, "b m d"),
        },
        {"l-1": kernel.shape[-1] - 1},
    )
    if not kernel.shape[1]:
        raise ValueError(f"block_conv: a kernel has 1 tap or more; got shape {tuple(kernel.shape)}.")
    taps = kernel.shape[1] + (0 if back is None else back.shape[1])
    b, t, d = x.shape
    if backend is None and block is None and one_piece(b, t, d, taps):
        backend = "torch"
    chosen = choose("block_conv", BACKENDS, backend, x, kernel, initial_state, back, ahead)
    y: Tensor = chosen.block_conv(x, kernel, initial_state, back, ahead, block)
    return y, torch_.last_inputs(x, initial_state, kernel.shape[1] - 1, kernel.dtype)


def one_piece(b: int, t: int, d: int, length: int) -> bool:
    """Whether one transform of all of (b, t, d) with ``length`` taps is to be preferred.

    Where the taps are about as long as the input, blocks save no work; short rows stay in a cache by blocks,
    longer ones gain nothing from it. Blocks hold a fraction of the memory, so they take over where the whole
    would need more than ``LARGEST`` numbers for a copy of the padded input (the spectrum and, in training,
    what the backward pass keeps come on top: about seven times as much).
    """
    return t > SHORT and 4 * length >= t and b * d * (t + length) <= LARGEST


def flops(b: int, t: int, d: int, length: int) -> int:
    """Multiplications and additions of one forward call as one piece: real transforms of t + l points."""
    points = t + length
    log = max(points - 1, 1).bit_length()
    return int(d * points * (2.5 * log * (2 * b + 1) + 3 * b))


def bytes_moved(b: int, t: int, d: int, length: int, item: int = 4) -> int:
    """Bytes one forward call must read and write at least."""
    return (2 * b * t + 2 * b * (length - 1) + length) * d * item
