"""Multiply-adds of a call as papers on vision count them: products and convolutions, and the scans apart."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

SCANS = ("selective_scan",)
MAPS = ("linear",)
"""Our own operators that are counted, by their names."""


class Products(NamedTuple):
    """``multiply_adds`` of matrix products and convolutions, and ``scans``: 9 b t d n + b t d for each
    selective scan, as the tables of VMamba (arXiv 2401.10166) add them to the former."""

    multiply_adds: int
    scans: int

    @property
    def published(self) -> int:
        """The sum that those tables call FLOPs."""
        return self.multiply_adds + self.scans


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.products = self.scans = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        namespace, _, name = func._schema.name.partition("::")
        if func._overloadpacket in flop_registry:
            self.products += int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)) // 2
        elif namespace == "hippodrome" and name in SCANS:
            u, A = args[0], args[2]
            self.scans += u.numel() * (9 * A.shape[1:].numel() + 1)
        elif namespace == "hippodrome" and name in MAPS:
            self.products += out.numel() * args[0].shape[-1]
        return out


def count_products(call: Callable[[], Any]) -> Products:
    """What ``call`` multiplies and adds. It runs once; elementwise functions and norms are not counted."""
    with _Counter() as counter:
        call()
    return Products(counter.products, counter.scans)
