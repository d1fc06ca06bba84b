"""One op and one backend as the contract sees them, and the tools its checks share."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Arguments = tuple[Any, ...]


class OpCase(NamedTuple):
    """One op and one backend of it, as the checks see them."""

    door: Callable[..., Any]
    backend: str
    examples: Callable[..., Arguments]
    along_time: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """The door's positional arguments in order."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return [p.name for p in inspect.signature(self.door).parameters.values() if p.kind is kind]

    def arguments(self, t: int, dtype: torch.dtype = torch.float64, **settings: Any) -> Arguments:
        """Example arguments; where the op has resets, one falls inside and one on the first step of a row."""
        arguments = list(self.examples(t=t, dtype=dtype, **settings))
        if "resets" in self.names and arguments[self.names.index("resets")] is not None:
            resets = arguments[self.names.index("resets")].clone()
            resets[0, t // 2] = True
            resets[-1, 0] = True
            arguments[self.names.index("resets")] = resets
        return tuple(arguments)

    def run(self, arguments: Arguments, backend: str | None = None) -> tuple[Tensor, ...]:
        """Outputs as a tuple; ``backend`` other than this case's on request."""
        outputs = self.door(*arguments, backend=backend or self.backend, **self.options)
        return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

    def gradients(
        self, arguments: Arguments, backend: str | None = None, outputs: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Gradients of a fixed random weighting of the outputs (of some, on request), by argument name."""
        leaves = tuple(leaf(x) for x in arguments)
        results = self.run(leaves, backend)
        chosen = range(len(results)) if outputs is None else outputs
        return pull(leaves, [results[i] for i in chosen], self.names)

    @property
    def has_state(self) -> bool:
        """Whether the op takes and returns a state."""
        return "initial_state" in self.names


def close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raise unless max|actual - expected| <= tolerance * max|expected|, shapes alike and all finite."""
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}.")
    if not expected.numel():
        return
    error = (actual.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    if not error <= tolerance * max(scale, torch.finfo(torch.float64).tiny):
        raise AssertionError(
            f"{what}: off by {error:.3e}, largest value {scale:.3e}, tolerance {tolerance:.0e}."
        )


def leaf(x: Any) -> Any:
    """A copy that requires a gradient, where one can."""
    if not isinstance(x, Tensor):
        return x
    return x.detach().clone().requires_grad_(x.is_floating_point())


def pull(leaves: Arguments, results: Sequence[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Gradients of a fixed random weighting of ``results`` to those leaves that require one, by name."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y) for y in results]
    wanted = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.requires_grad]
    reached = [(y, w) for y, w in zip(results, weights, strict=True) if y.requires_grad]
    found = torch.autograd.grad(
        [y for y, _ in reached], [leaves[i] for i in wanted], [w for _, w in reached], allow_unused=True
    )
    zeros = [torch.zeros_like(leaves[i]) if g is None else g for i, g in zip(wanted, found, strict=True)]
    return {names[i]: g for i, g in zip(wanted, zeros, strict=True)}


def named(case: OpCase, arguments: Arguments) -> Iterator[tuple[str, Any]]:
    """Names and arguments side by side."""
    return zip(case.names, arguments, strict=True)


def batched(case: OpCase, name: str, x: Any) -> bool:
    """Whether axis 0 of this argument is the batch."""
    return x is not None and (name in case.along_time or name in ("resets", "initial_state"))


def cut(case: OpCase, arguments: Arguments, first: int, last: int) -> Arguments:
    """The arguments of steps first to last alone."""
    timed = {*case.along_time, "resets"}
    pairs = named(case, arguments)
    return tuple(x[:, first:last] if name in timed and x is not None else x for name, x in pairs)


def with_state(case: OpCase, arguments: Arguments, state: Tensor | None) -> Arguments:
    """The arguments with another initial state."""
    return tuple(state if name == "initial_state" else x for name, x in named(case, arguments))


def without(case: OpCase, arguments: Arguments, absent: str) -> Arguments:
    """The arguments with one left out."""
    return tuple(None if name == absent else x for name, x in named(case, arguments))


def slice_of_wider(x: Any) -> Any:
    """The same values as a view into a tensor with a longer last axis."""
    if not isinstance(x, Tensor):
        return x
    wider = x.new_zeros(*x.shape[:-1], x.shape[-1] + 3)
    wider[..., 2:-1] = x
    return wider[..., 2:-1]


def transposed(x: Any) -> Any:
    """The same values in a tensor whose storage runs through its axes backwards."""
    if not isinstance(x, Tensor):
        return x
    axes = tuple(reversed(range(x.dim())))
    return x.permute(axes).contiguous().permute(axes)


@contextmanager
def recording() -> Iterator[dict[str, tuple[Any, Arguments, dict[str, Any]]]]:
    """Collect the first call of each of our custom ops, with its arguments."""
    calls: dict[str, tuple[Any, Arguments, dict[str, Any]]] = {}

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "hippodrome":
                calls.setdefault(str(func), (func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Recorder():
        yield calls
