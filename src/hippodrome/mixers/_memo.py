"""A memory of one value that follows from a module's parameters, for calls that need no gradient."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch.optim.optimizer import register_optimizer_step_post_hook

Value = TypeVar("Value")
_KINDS = (nn.Parameter, Tensor)


class _Training:
    """Counts the optimizer steps of this process: a fused one writes parameters and raises no counter."""

    steps = 0

    @classmethod
    def count(cls, *_: object) -> None:
        # A compiled step counts the versions of what it writes.
        if not torch.compiler.is_compiling():
            cls.steps += 1


register_optimizer_step_post_hook(_Training.count)


class Memo(Generic[Value]):
    """Keeps what was last made of a module's own parameters and buffers until one of them changes.

    A step of a recurrence needs its discretized system, which is the same from token to token while nobody
    trains. With gradients on, inside a compiler, a function transform or a dispatch mode (which wants to see
    what a value is made of), or where a parameter is anything but a plain one, nothing is kept and the value
    is made at each call.

    A change is seen by a tensor's place, type and version counter: ``load_state_dict``, ``.to``, any in-place
    operation; and any step of an optimizer of ``torch.optim`` drops all that is kept. Writing through
    ``parameter.data`` or a NumPy view raises no counter and is not seen: write under ``torch.no_grad()``
    instead, or call ``clear``.

    Copies and pickles of a memo are empty, and no state dict holds one. Threads that share one may make the
    value twice; neither gets a wrong one.
    """

    def __init__(self) -> None:
        self._kept: tuple[tuple, Value, list[Tensor]] | None = None

    def get(self, module: nn.Module, make: Callable[[], Value], *settings: object) -> Value:
        """``make()``, or what it gave before.

        ``make`` must depend on nothing but the module's own parameters and buffers (not those of its
        children) and on ``settings``, plain values that are compared.
        """
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch._C._len_torch_dispatch_stack():
            return make()
        tensors = [x for x in (*module._parameters.values(), *module._buffers.values()) if x is not None]
        if not _plain(module, tensors) or _recorded(tensors):
            return make()
        # Read before the value is made: a change in between then shows at the next call.
        marks = [(x.data_ptr(), x._version, x.dtype, x.device, x.shape, x.stride()) for x in tensors]
        key = (_Training.steps, *settings, *marks)
        kept = self._kept
        if kept is not None and kept[0] == key:
            return kept[1]
        value = make()
        # The aliases hold on to the memory, so that no other tensor can come to lie at the same address.
        self._kept = (key, value, [x.detach() for x in tensors])
        return value

    def clear(self) -> None:
        """Forget the value."""
        self._kept = None

    def __deepcopy__(self, memory: dict[int, Any]) -> "Memo[Value]":
        return Memo()

    def __reduce__(self) -> tuple[type["Memo"], tuple[()]]:
        return Memo, ()


def _recorded(tensors: list[Tensor]) -> bool:
    """Whether a CUDA graph is being recorded, which must make the value at each replay, in its own memory."""
    for x in tensors:
        if x.is_cuda:
            return torch.cuda.is_current_stream_capturing()
    return False


def _plain(module: nn.Module, tensors: list[Tensor]) -> bool:
    """Whether every tensor is itself, with a version counter, and not derived from another by a hook."""
    # Plain loops: asked at each token of each layer, where a generator costs as much as what it asks.
    for x in tensors:
        if type(x) not in _KINDS or x.is_inference() or x.is_meta:
            return False
    for p in module._parameters.values():
        if p is not None and type(p) is not nn.Parameter:
            return False
    return "parametrizations" not in module._modules and _functorch.peek_interpreter_stack() is None
