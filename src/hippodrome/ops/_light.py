"""Custom ops for calls that take microseconds themselves, registered with little in the way.

``torch.library.custom_op`` wraps an op in layers of Python (13 us a call, 25 us where it overwrites an
argument), more than the work of one token in one layer. An op made here is a schema and one function behind
the dispatcher, 2 us a call: ``torch.compile``, ``torch.export``, dispatch modes, profilers and ``opcheck``
see it as they see any other. Where none of them looks, the function is called as it is. It has no gradient,
so its door hands it calls that need none only.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch

_LIBRARY = torch.library.Library("hippodrome", "FRAGMENT")
_PLAIN = (Tensor, nn.Parameter)
_FUNCTIONS: dict[Any, Callable[..., Any]] = {}
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
"""Storage that the kernels take; bfloat16 is widened to float32 as it is read."""


def light_op(
    name: str, fake: Callable[..., Any], *, mutates: tuple[str, ...] = (), devices: tuple[str, ...] = ("CPU",)
) -> Callable[[Callable[..., Any]], Any]:
    """Make an op of a function on tensors and numbers, which returns new tensors and shares none.

    ``fake`` gives the shapes of what it returns. ``mutates`` names the arguments that it overwrites.
    """

    def register(function: Callable[..., Any]) -> Any:
        schema = torch.library.infer_schema(function, mutates_args=mutates)
        _LIBRARY.define(name + schema)
        packet, _, overload = name.partition(".")
        for device in devices:
            _LIBRARY.impl(name, function, device)
        torch.library.register_fake(f"hippodrome::{name}", fake, lib=_LIBRARY)
        op = getattr(getattr(torch.ops.hippodrome, packet), overload or "default")
        _FUNCTIONS[op] = function

        def call(*arguments: Any) -> Any:
            return op(*arguments) if _seen() else function(*arguments)

        return call

    return register


def function_of(op: Any) -> Callable[..., Any] | None:
    """The function behind an op made here, for a dispatch mode that wants to see what it does inside."""
    return _FUNCTIONS.get(op)


def _seen() -> bool:
    """Whether anybody may be looking at what goes through the dispatcher, autograd among them."""
    return (
        torch.compiler.is_compiling()
        or torch.is_grad_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()
    )


def foreign(*tensors: Tensor | None) -> str | None:
    """Why a kernel that reads memory cannot take these tensors, whether gradients are wanted or not."""
    for x in tensors:
        if x is not None and type(x) not in _PLAIN and not torch.compiler.is_compiling():
            return f"the kernels read memory, and a tensor is a {type(x).__name__}."
    if _functorch.peek_interpreter_stack() is not None:
        return "the kernel has no rule for function transforms such as torch.func.vmap."
    return None


def unfit(*tensors: Tensor | None) -> str | None:
    """Why an op without a gradient and without a batching rule cannot take these tensors, if so."""
    if torch.is_grad_enabled():
        for x in tensors:
            if x is not None and x.requires_grad:
                return "the kernel has no gradient, and a tensor requires one; use torch.no_grad()."
    return foreign(*tensors)


def unfit_for_kernel(*tensors: Tensor | None) -> str | None:
    """Why a Numba kernel of one token cannot take these tensors: device, dtype, gradient."""
    for x in tensors:
        if x is not None:
            if not x.is_cpu:
                return f"the Numba kernels run on the CPU, and a tensor is on {x.device}."
            if x.dtype not in DTYPES:
                return f"the kernel takes float32, bfloat16 and float64; got {x.dtype}."
    return unfit(*tensors)


def blank(x: Tensor) -> Tensor:
    """Memory for an output of x's shape, in order; ``x.new_empty(x.shape)`` takes twice as long to ask."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def dense(x: Tensor) -> Tensor:
    """The tensor itself where it lies in order, else a copy that does."""
    return x if x.is_contiguous() else x.contiguous()


def rows(x: Tensor) -> Tensor:
    """The tensor itself where its last axis is dense, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def written(state: Tensor, dense: Tensor) -> None:
    """Bring what a kernel wrote back into the state, where the kernel wrote into a copy."""
    if dense is not state:
        state.copy_(dense)
    else:
        # The kernel went past PyTorch: a backward pass that had saved the state must learn of it.
        torch.autograd.graph.increment_version(state)


def agree(
    fast: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    arguments: Sequence[Tensor | None],
    device: torch.device,
    *options: object,
    tolerance: float = 1e-4,
) -> None:
    """The body of a self-check of an op that overwrites its last tensor, in float32 against float64.

    Raises:
        ArithmeticError: the output or the state differs by more than the tolerance times its largest value.
    """
    results = []
    for run, dtype in ((fast, torch.float32), (plain, torch.float64)):
        placed = [x if x is None else x.float().to(device, dtype) for x in arguments]
        y, state = run(*placed, *options), placed[-1]
        assert state is not None
        results.append((("the output", y), ("the state", state)))
    for (what, actual), (_, expected) in zip(*results, strict=True):
        error, scale = (actual.double() - expected).abs().max().item(), expected.abs().max().item()
        if not error <= tolerance * scale:
            raise ArithmeticError(f"{what} is off by {error:.1e} where the largest value is {scale:.1e}")
