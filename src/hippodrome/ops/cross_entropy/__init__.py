"""Cross-entropy of rows of logits, and its gradient written over them: the logits need never be held twice.

For one row z with target y: loss = logsumexp(z) - z_y, and d loss / d z = softmax(z) - e_y (Bridle 1990,
"Probabilistic interpretation of feedforward classification network outputs", equation 4). A vocabulary of
50,000 makes the logits the largest tensor of a language model by far, so this op overwrites its argument, as
the underscore of its name says, and is no node of autograd: who calls it holds the gradient already.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.cross_entropy import numba_, reference, torch_
from hippodrome.ops.cross_entropy.reference import IGNORED

BACKENDS = (numba_, torch_, reference)


def cross_entropy_(
    logits: Float[Tensor, "rows vocab"],
    targets: Int[Tensor, "rows"],
    rate: Float[Tensor, ""] | None = None,
    *,
    backend: str | None = None,
) -> Float[Tensor, "rows"]:
    """Losses of the rows in nats, in float32 at least; the logits become ``rate`` times their gradient.

    Args:
        logits: (rows, vocab), dense, bfloat16, float32 or float64; overwritten unless ``rate`` is None.
        targets: int64 indices below vocab, or ``IGNORED``, -100, for a row without a target, (rows).
        rate: factor of every gradient, a tensor without axes; None leaves the logits as they are.
        backend: force one of "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, a target is outside the vocabulary (told on the CPU), or
            no backend can run these tensors; the message says why.
    """
    check_arguments("cross_entropy_", {"logits": (logits, "rows vocab")})
    if targets.shape != logits.shape[:1] or targets.dtype != torch.int64:
        raise ValueError(
            f"cross_entropy_: targets must be int64 of shape ({logits.shape[0]},), one for each row of "
            f"logits; got {targets.dtype} of shape {tuple(targets.shape)}."
        )
    if not logits.is_contiguous():
        raise ValueError(
            "cross_entropy_: logits must be dense, since they are overwritten where they lie; got strides "
            f"{logits.stride()} for shape {tuple(logits.shape)}. Use `.contiguous()`."
        )
    chosen = choose("cross_entropy_", BACKENDS, backend, logits, targets, rate)
    return chosen.cross_entropy_(logits, targets, rate)


__all__ = ["BACKENDS", "IGNORED", "bytes_moved", "cross_entropy_", "flops"]


def flops(rows: int, vocab: int) -> int:
    """Operations of one call with gradients; an exponential, an addition, a multiplication count one each."""
    return rows * vocab * 7


def bytes_moved(rows: int, vocab: int, item: int = 4) -> int:
    """Bytes one call with gradients must read and write at least."""
    return rows * (2 * vocab * item + 8 + item)
