"""Cross-entropy of a linear head, in chunks of rows: the (rows, vocabulary) logits never exist at once.

For one row, with logits z = x W^T and target y: loss = logsumexp(z) - z_y, d loss / d z = softmax(z) - e_y.
The gradient needs nothing but the chunk at hand, so the forward pass forms it there and then and keeps the
gradients of x and W alone: no second product with W in the backward pass, no stored logits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from hippodrome.models.base import exact_sum

IGNORED = -100
_ELEMENTS = 2**24
"""Logits formed at once: 64 MiB in float32."""


class Score(NamedTuple):
    """How well targets are predicted, summed over the rows that have one: exact over unequal batches."""

    nats: Tensor
    correct: Tensor
    rows: Tensor


def linear_cross_entropy(
    x: Float[Tensor, "rows d"], weight: Float[Tensor, "vocab d"], targets: Int[Tensor, "rows"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of ``softmax(x weight^T)`` over the rows whose target is not -100.

    Products run in the autocast type where autocast is on; everything after them in float32 at least. Zero
    where no row has a target. Differentiable any number of times.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return _LinearCrossEntropy.apply(x, weight, targets, wanted)


def score(x: Tensor, weight: Tensor, targets: Tensor) -> Score:
    """Total nats, number of correct first guesses and number of rows, without gradients."""
    with torch.no_grad():
        nats = exact_sum(x.new_zeros(0))
        correct = torch.zeros((), dtype=torch.int64, device=x.device)
        for rows in _chunks(len(x), len(weight)):
            logits, chosen, valid = _logits(x[rows], weight, targets[rows])
            losses = logits.logsumexp(1) - logits.gather(1, chosen[:, None])[:, 0]
            nats += exact_sum(losses * valid)
            correct += ((logits.argmax(1) == chosen) & valid).sum()
        return Score(nats, correct, (targets != IGNORED).sum())


class _LinearCrossEntropy(torch.autograd.Function):
    """The chunked loss; gradients are formed in the forward pass, and again where they are differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, wanted: bool) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        half = (
            torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        )
        rate = (targets != IGNORED).sum().clamp(min=1).to(wide).reciprocal()
        total = torch.zeros((), dtype=wide, device=x.device)
        narrow = weight.to(half)
        grad_x = torch.empty_like(x) if wanted else x.new_empty(0)
        grad_weight = torch.zeros_like(weight, dtype=wide) if wanted else x.new_empty(0)
        with torch.autocast(x.device.type, enabled=False):
            for rows in _chunks(len(x), len(weight)):
                piece = x[rows].to(half)
                logits, chosen, valid = _logits(piece, narrow, targets[rows])
                peak = logits.logsumexp(1, keepdim=True)
                total += ((peak - logits.gather(1, chosen[:, None]))[:, 0] * valid).sum()
                if wanted:
                    share = logits.sub_(peak).exp_()
                    share.scatter_add_(1, chosen[:, None], -torch.ones_like(peak))
                    share = share.mul_((valid * rate)[:, None]).to(half)
                    grad_x[rows] = (share @ narrow).to(x.dtype)
                    if half == wide:
                        grad_weight.addmm_(share.T, piece)
                    else:
                        grad_weight += share.T @ piece
        ctx.save_for_backward(x, weight, targets, grad_x, grad_weight.to(weight.dtype))
        return total * rate

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets, grad_x, grad_weight = ctx.saved_tensors
        (grad,) = grads
        if torch.is_grad_enabled():  # someone differentiates the gradient: form it again, in plain operations
            head = weight.view_as(weight)  # apart from a tied embedding, which x may come from
            loss = functional.cross_entropy(x @ head.T, targets.long(), ignore_index=IGNORED, reduction="sum")
            loss = loss / (targets != IGNORED).sum().clamp(min=1)
            return *torch.autograd.grad(loss, (x, head), grad, create_graph=True), None, None
        return grad_x * grad.to(x.dtype), grad_weight * grad.to(weight.dtype), None, None


def _logits(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in float32 at least, targets with 0 for those that are ignored, and which are not."""
    valid = targets != IGNORED
    logits = functional.linear(x, weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits, torch.where(valid, targets, 0).long(), valid


def _chunks(rows: int, vocab: int) -> Iterator[slice]:
    """Slices of rows whose logits together stay below the bound; the last may be shorter."""
    size = max(1, _ELEMENTS // vocab)
    return (slice(low, min(low + size, rows)) for low in range(0, rows, size))
