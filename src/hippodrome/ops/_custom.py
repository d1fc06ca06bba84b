"""Autograd for fast backends: a fused backward that can itself be differentiated through the torch form."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Form = Callable[..., tuple[Tensor, ...]]


def gradients(
    form: Form, inputs: Sequence[Tensor], grad_outputs: Sequence[Tensor | None], *, create_graph: bool = False
) -> list[Tensor | None]:
    """Gradients of ``form(*inputs)`` by autograd; None for an input that needs none or reaches no output."""
    outputs = form(*inputs)
    wanted = [i for i, x in enumerate(inputs) if x.requires_grad]
    pairs = [(y, g) for y, g in zip(outputs, grad_outputs, strict=True) if g is not None and y.requires_grad]
    result: list[Tensor | None] = [None] * len(inputs)
    if pairs and wanted:
        found = torch.autograd.grad(
            [y for y, _ in pairs],
            [inputs[i] for i in wanted],
            [g for _, g in pairs],
            create_graph=create_graph,
            allow_unused=True,
        )
        for i, gradient in zip(wanted, found, strict=True):
            result[i] = gradient
    return result


def register_second_order(backward_op: Any, form: Form, outputs: int, inputs: int, options: int = 0) -> None:
    """Make a fused backward differentiable in eager mode by rerunning ``form``, the torch backend's function.

    ``backward_op(*grad_outputs, *inputs, *extras)`` takes ``outputs`` gradients, then the ``inputs`` tensors
    that ``form`` takes, then anything else the kernel wants (saved outputs, checkpoints, numbers), which is a
    function of the inputs and so gets no gradient. It returns one tensor for each floating input, in order.
    ``options`` counts the extras, first in order, that ``form`` takes behind the tensors: flags and numbers.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: outputs + n_inputs])
        ctx.extras = len(inputs) - outputs - n_inputs
        ctx.options = inputs[outputs + n_inputs :][:options]
        ctx.set_materialize_grads(False)

    n_inputs = inputs

    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if len(grads) == 1 and isinstance(grads[0], list | tuple):
            grads = tuple(grads[0])

        def first_order(*leaves: Tensor) -> tuple[Tensor, ...]:
            primal = leaves[outputs:]
            found = gradients(lambda *x: form(*x, *ctx.options), primal, leaves[:outputs], create_graph=True)
            pairs = zip(found, primal, strict=True)
            return tuple(torch.zeros_like(x) if g is None else g for g, x in pairs if x.is_floating_point())

        with torch.enable_grad():
            leaves = [x.detach().requires_grad_(x.is_floating_point()) for x in ctx.saved_tensors]
            second = gradients(first_order, leaves, grads)
        return (*second, *[None] * ctx.extras)

    backward_op.register_autograd(backward, setup_context=setup_context)
