"""Cross-entropy of rows of logits and its gradient, which may be written over them.

For one row z with target y: loss = logsumexp(z) - z_y, and d loss / d z = softmax(z) - e_y (Bridle 1990,
"Probabilistic interpretation of feedforward classification network outputs", equation 4). A vocabulary of
50,000 makes the logits the largest tensor of a language model by far: they need not be held twice. The op is
no node of autograd: who calls it holds the gradient already.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hippodrome.ops._check import check_arguments
from hippodrome.ops._door import choose
from hippodrome.ops.cross_entropy import numba_, reference, torch_
from hippodrome.ops.cross_entropy.reference import IGNORED

BACKENDS = (numba_, torch_, reference)


def cross_entropy(
    logits: Float[Tensor, "rows vocab"],
    targets: Int[Tensor, "rows"],
    rate: Float[Tensor, ""] | None = None,
    *,
    overwrite: bool = False,
    backend: str | None = None,
) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows vocab"] | None]:
    """Losses of the rows in nats, float32 at least, and ``rate`` times their gradient in the logits' dtype.

    Args:
        logits: (rows, vocab), bfloat16, float32 or float64.
        targets: int64 indices below vocab, or ``IGNORED``, -100, for a row without a target, (rows).
        rate: factor of every gradient, a tensor without axes; None for no gradient.
        overwrite: write the gradient over the logits, which must be dense, rather than beside them.
        backend: force one of "numba", "torch", "reference"; None takes the first that can run.

    Raises:
        ValueError: a shape or dtype does not fit, a target is outside the vocabulary (told on the CPU), or
            no backend can run these tensors; the message says why.
    """
    check_arguments("cross_entropy", {"logits": (logits, "rows vocab")})
    if targets.shape != logits.shape[:1] or targets.dtype != torch.int64:
        raise ValueError(
            f"cross_entropy: targets must be int64 of shape ({logits.shape[0]},), one for each row of "
            f"logits; got {targets.dtype} of shape {tuple(targets.shape)}."
        )
    if overwrite and not logits.is_contiguous():
        raise ValueError(
            "cross_entropy: logits must be dense to be overwritten where they lie; got strides "
            f"{logits.stride()} for shape {tuple(logits.shape)}. Use `.contiguous()`."
        )
    chosen = choose("cross_entropy", BACKENDS, backend, logits, targets, rate)
    held = logits.contiguous()
    if held is logits and rate is not None and not overwrite:
        held = logits.clone()
    losses = chosen.cross_entropy_(held, targets, rate)
    return losses, None if rate is None else held


__all__ = ["BACKENDS", "IGNORED", "bytes_moved", "cross_entropy", "flops"]


def flops(rows: int, vocab: int) -> int:
    """Operations of one call with gradients; an exponential, an addition, a multiplication count one each."""
    return rows * vocab * 7


def bytes_moved(rows: int, vocab: int, item: int = 4) -> int:
    """Bytes one call with gradients must read and write at least."""
    return rows * (2 * vocab * item + 8 + item)
