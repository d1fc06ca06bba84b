"""The weights of a model as they lie in memory at one moment, and whether they still lie so."""

from operator import is_
from typing import Any

from torch import Tensor, nn


class Weights:
    """What the parameters, buffers and parts of a model are now.

    A recorded token reads weights by their addresses. Converting, rounding or loading a model may put others
    in their place, which the recording would know nothing of; this looks at each, in some 0.1 us.

    Args:
        model: any.
    """

    def __init__(self, model: nn.Module) -> None:
        found = [
            (table, name, held)
            for module in model.modules()
            for table in (module._parameters, module._buffers, module._modules)
            for name, held in table.items()
        ]
        self._tables: list[dict[str, Any]] = [table for table, _, _ in found]
        self._names = [name for _, name, _ in found]
        self._held = [held for _, _, held in found]
        self._tensors = [held for held in self._held if isinstance(held, Tensor)]
        self._places = list(map(Tensor.data_ptr, self._tensors))

    def replaced(self) -> bool:
        """Whether any is another tensor or another part, or has been moved, as ``Module.to`` does."""
        return (
            not all(map(is_, map(dict.get, self._tables, self._names), self._held))
            or list(map(Tensor.data_ptr, self._tensors)) != self._places
        )
