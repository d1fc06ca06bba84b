"""Looking up rows of a table that is the head's matrix as well: a gradient that holds the rows alone."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def tied_lookup(embedding: nn.Module, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
    """``embedding(ids)`` where the loss gives its weight a dense gradient too, which this one is added into.

    A dense gradient of the lookup alone is a table of zeros but for the few rows that occur: for a vocabulary
    of 50,000 it costs as much as several layers to fill and to add. As rows of a sparse tensor it costs what
    it holds, and the sum with the dense one is dense. An embedding that is not PyTorch's own as it stands
    (hooks, parametrizations, adapters in its place) is called like any other module.
    """
    if type(embedding) is not nn.Embedding:
        return embedding(ids)
    weight = embedding.weight
    hooks = [embedding._forward_hooks, embedding._forward_pre_hooks]
    hooks += [embedding._backward_hooks, embedding._backward_pre_hooks]
    plain = type(weight) is nn.Parameter and not any(hooks)
    options = (embedding.padding_idx, embedding.max_norm, embedding.scale_grad_by_freq or None)
    plain = plain and options == (None, None, None) and weight.device.type in ("cpu", "cuda")
    if plain and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Lookup.apply(weight, ids)
    return embedding(ids)


class _Lookup(torch.autograd.Function):
    """Rows of a table; the gradient is sparse, but dense where it is itself differentiated."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = len(weight)
        return nn.functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        (ids,), (grad,) = ctx.saved_tensors, grads
        flat, rows = ids.flatten().long(), grad.reshape(-1, grad.shape[-1])
        if torch.is_grad_enabled():
            return rows.new_zeros(ctx.rows, rows.shape[1]).index_add(0, flat, rows), None
        return torch.sparse_coo_tensor(
            flat[None], rows, (ctx.rows, rows.shape[1]), check_invariants=False
        ), None
