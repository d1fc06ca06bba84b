"""Models built without drawing their weights, for those that are read from a file at once.

What nobody writes to takes no memory: the system hands out pages when they are first touched. So a model
built here costs next to nothing until its weights come.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FILLS = {
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.fill_,
    Tensor.zero_,
    Tensor.div_,
    Tensor.mul_,
    Tensor.__itruediv__,
    Tensor.__imul__,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.kaiming_uniform_,
    nn.init.xavier_uniform_,
    nn.init.trunc_normal_,
    nn.init.zeros_,
    nn.init.ones_,
}
SMALL = 2**14
"""Numbers up to which a tensor is filled as always: buffers that no file holds are smaller."""


class Unfilled(TorchFunctionMode):
    """While it is entered, large tensors are not filled with random or constant numbers, nor scaled."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _FILLS and (args or "tensor" in kwargs):
            tensor = args[0] if args else kwargs["tensor"]
            if isinstance(tensor, Tensor) and tensor.numel() > SMALL:
                return tensor
        return function(*args, **kwargs)
