"""Cross-entropy of a linear head, in chunks of rows: the (rows, vocabulary) logits never exist at once.

For one row, with logits z = x W^T and target y: loss = logsumexp(z) - z_y, d loss / d z = softmax(z) - e_y.
The gradient needs nothing but the chunk at hand, so the forward pass writes it over the logits there and then
and keeps the gradients of x and W alone: no second product with W in the backward pass, no stored logits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from hippodrome.models.base import exact_sum
from hippodrome.ops.cross_entropy import IGNORED, cross_entropy
from hippodrome.ops.linear import linear

_BYTES = 2**27
"""Of the logits formed at once, in the type of the products: a larger chunk saves nothing."""
_ROWS = 1024
"""Of the weights' gradient that are summed at a time where it must be widened: what the cache holds."""


class Score(NamedTuple):
    """How well targets are predicted, summed over the rows that have one: exact over unequal batches."""

    nats: Tensor
    correct: Tensor
    rows: Tensor


def linear_cross_entropy(
    x: Float[Tensor, "rows d"],
    weight: Float[Tensor, "vocab d"],
    targets: Int[Tensor, "rows"],
    cap: float | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of ``softmax(x weight^T)`` over the rows whose target is not -100.

    With ``cap`` the logits are those of ``capped``.
    Products run in the autocast type where autocast is on; everything after them in float32 at least. Zero
    where no row has a target. Differentiable any number of times.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return _LinearCrossEntropy.apply(x, weight, targets, wanted, cap)


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """cap tanh(z / cap): logits that stay below a bound and keep their order; None leaves them alone."""
    return logits if cap is None else torch.tanh(logits / cap) * cap


def score(x: Tensor, weight: Tensor, targets: Tensor, cap: float | None = None) -> Score:
    """Total nats, number of correct first guesses and number of rows, without gradients."""
    with torch.no_grad():
        targets = targets.long()
        nats = exact_sum(x.new_zeros(0))
        correct = torch.zeros((), dtype=torch.int64, device=x.device)
        half = _product_dtype(x)
        for rows in _chunks(len(x), len(weight) * half.itemsize):
            logits = capped(linear(x[rows].to(half), weight.to(half)), cap)
            correct += (logits.argmax(1) == targets[rows]).sum()
            nats += exact_sum(cross_entropy(logits, targets[rows])[0])
        return Score(nats, correct, (targets != IGNORED).sum())


def guesses(x: Tensor, weight: Tensor) -> Int[Tensor, "rows"]:
    """The first guess of each row, without gradients."""
    with torch.no_grad():
        half = _product_dtype(x)
        pieces = _chunks(len(x), len(weight) * half.itemsize)
        found = [linear(x[rows].to(half), weight.to(half)).argmax(1) for rows in pieces]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64, device=x.device)


class _LinearCrossEntropy(torch.autograd.Function):
    """The chunked loss; gradients are formed in the forward pass, and again where they are differentiated."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, wanted: bool, cap: float | None
    ) -> Tensor:
        wide, half = torch.promote_types(x.dtype, torch.float32), _product_dtype(x)
        targets = targets.long()
        rate = (targets != IGNORED).sum().clamp(min=1).to(wide).reciprocal()
        total = torch.zeros((), dtype=wide, device=x.device)
        narrow = weight.to(half)
        grad_x = torch.empty_like(x) if wanted else x.new_empty(0)
        grad_weight = x.new_empty(0)
        with torch.autocast(x.device.type, enabled=False):
            for rows in _chunks(len(x), len(weight) * half.itemsize):
                piece = x[rows].to(half)
                logits = capped(linear(piece, narrow), cap)
                # The slope of the cap, for the gradient is written over the logits.
                slope = None if cap is None or not wanted else 1 - (logits / cap) ** 2
                losses, grad = cross_entropy(logits, targets[rows], rate if wanted else None, overwrite=True)
                total += losses.sum()
                if grad is not None:
                    grad = grad if slope is None else grad.mul_(slope)
                    grad_x[rows] = linear(grad, narrow.T)
                    if ctx.needs_input_grad[1]:  # a frozen head asks for none, and saves a third of its work
                        grad_weight = _added(grad_weight, grad.T, piece, wide)
        ctx.save_for_backward(x, weight, targets, grad_x, grad_weight)
        ctx.cap = cap
        return total * rate

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets, grad_x, grad_weight = ctx.saved_tensors
        (grad,) = grads
        if torch.is_grad_enabled():  # someone differentiates the gradient: form it again, in plain operations
            head = weight.view_as(weight)  # apart from a tied embedding, which x may come from
            logits = capped(x @ head.T, ctx.cap)
            loss = functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
            loss = loss / (targets != IGNORED).sum().clamp(min=1)
            return *torch.autograd.grad(loss, (x, head), grad, create_graph=True), None, None, None
        if not ctx.needs_input_grad[1]:
            return grad_x * grad.to(x.dtype), None, None, None, None
        grad_weight = grad_weight.to(weight.dtype)
        eager = grad.device.type == "cpu" and not torch.compiler.is_compiling()
        if eager and float(grad) == 1:  # as a rule: one pass over a large tensor less
            return grad_x, grad_weight, None, None, None
        return grad_x * grad.to(x.dtype), grad_weight * grad.to(weight.dtype), None, None, None


def _product_dtype(x: Tensor) -> torch.dtype:
    """What a linear map of x computes in: its own type, or that of autocast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _added(total: Tensor, left: Tensor, right: Tensor, wide: torch.dtype) -> Tensor:
    """``total + left @ right``, an empty total being zero: sums of several products are in ``wide``."""
    product = linear(left, right.T)
    if not total.numel():
        return product
    total = total.to(wide)
    for low in range(0, len(total), _ROWS):
        total[low : low + _ROWS] += product[low : low + _ROWS]
    return total


def _chunks(rows: int, row_bytes: int) -> Iterator[slice]:
    """Slices of rows, nearly equal, whose logits together stay below the bound."""
    count = -(-rows // max(1, _BYTES // row_bytes))
    return (slice(rows * i // count, rows * (i + 1) // count) for i in range(count))
