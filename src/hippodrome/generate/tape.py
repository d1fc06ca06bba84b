"""One token of a whole model on a tape: what a CUDA graph is on a GPU, for the CPU.

A token of a small model is a few hundred calls of some microseconds, and Python takes as long to make them.
Here they are taken down once while a token runs and from then on run as one call (``ops._tape``), on the
memory that they were taken down with: the ids lie in a buffer and the state in the tensors that ``advance_``
overwrites.

Every operation of PyTorch that is neither a view nor computed from parameters alone has a kernel here that
does the same, or the recording is refused. What was recorded, on zeros, is held against the loop on a real
token before it is used: whatever was taken for constant and is not would show there.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hippodrome.generate._weights import Weights
from hippodrome.ops._elementwise import FORMS, Unheld
from hippodrome.ops._light import function_of
from hippodrome.ops._tape import Tape
from hippodrome.ops._threads import is_forked, noting

WARM_UP = 8
"""Tokens that run before one is recorded, which costs as much as a few: short answers do without."""
LARGEST = 1 << 27
"""Bytes of the state up to which a token is recorded: checking it holds two copies for a moment, and to read
more takes so long that Python is little beside it."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""How far logits of a replay may be from the loop's, over the largest: both round, in other places."""

aten = torch.ops.aten
_MAKERS = {
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
}


def refusal(ids: Tensor, in_place: bool) -> str | None:
    """Why tokens are not to be recorded, or None where they may be tried."""
    if not in_place:
        return "the model holds a state that grows with each token, so no two tokens run on the same memory."
    if ids.device.type != "cpu":
        return f"a tape runs on the CPU, and the tokens are on {ids.device}."
    if is_forked():
        return "in a forked process PyTorch's own threads hang, which the recording of a token may call."
    return None


class _Watch(TorchFunctionMode):
    """Refuses what reads numbers without an operation: a later token would have others."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
            raise Unheld("it reads a value back to go by")
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    """Takes down what a call does to memory: our kernels as they are, PyTorch's own by their forms."""

    def __init__(self, tape: Tape, inputs: list[Tensor]) -> None:
        super().__init__()
        self.tape = tape
        self.live = {place for x in inputs if (place := _place(x))}
        """Memory whose content differs from token to token."""
        self.sources: list[Tensor] = []
        """What was computed from and is taken for constant."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Some of our own are best run as they are.
        function = None if func in FORMS else function_of(func)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        written = [args[i] for i, a in enumerate(func._schema.arguments) if _writes(a) and i < len(args)]
        if function is not None:
            with self:
                result = function(*args, **kwargs)
            self._lives(result, *written)
        elif func in _MAKERS or _is_view(func, args):
            result = func(*args, **kwargs)
        elif not any(_place(x) in self.live for x in tensors) and not written:
            # The same at every token: computed now, and held.
            self.sources += tensors
            result = func(*args, **kwargs)
        else:
            form = FORMS.get(func)
            if func in (aten._local_scalar_dense.default, aten.is_nonzero.default):
                raise Unheld("it reads a value back to go by")
            if form is None:
                raise Unheld(f"{func} has no form on a tape")
            result = form(self.tape, func, *args, **kwargs)
            self._lives(result, *written)
        self.tape.kept += [args, kwargs, result]
        return result

    def _lives(self, *results: Any) -> None:
        for x in tree_leaves(results):
            if isinstance(x, Tensor) and (place := _place(x)):
                self.live.add(place)


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _is_view(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether every output is an input's memory, unwritten."""
    if func is aten.contiguous.default:
        # The one that says so and copies where it must.
        return bool(args[0].is_contiguous())
    if func is aten._unsafe_view.default:
        return True
    marks = [x.alias_info for x in func._schema.returns]
    return bool(marks) and all(mark is not None and not mark.is_write for mark in marks)


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


class Replay:
    """A recorded call on token ids.

    Args:
        call: from token ids to logits; it overwrites the state.
        ids: tokens of the shape that all later ones will have.
        state: the tensors that the call overwrites; recording leaves them as they are.
        model: whose weights the call reads.

    Raises:
        Unheld: the state is large, the call does what no tape holds, or a replay does not do what the call
            does.
    """

    def __init__(
        self, call: Callable[[Tensor], Tensor], ids: Tensor, state: list[Tensor], model: nn.Module
    ) -> None:
        size = sum(x.nbytes for x in state)
        if size > LARGEST:
            raise Unheld(f"the state takes {size} bytes, and a token on up to {LARGEST} is recorded")
        self.call, self.ids = call, ids.clone()
        before = [x.clone() for x in state]
        try:
            expected = call(self.ids)
            after = [x.clone() for x in state]
            for x in (self.ids, *state):
                x.zero_()
            self.tape = Tape()
            recorder = _Recorder(self.tape, [self.ids, *state])
            with noting(self.tape), _Watch(), recorder:
                self.output = call(self.ids)
            self.tape.close()
            self._weights = Weights(model)
            self._marks = [(x, x._version) for x in _once(recorder.sources)]
            _restore(state, before)
            self.ids.copy_(ids)
            self.tape.replay()
            _compare([self.output, *state], [expected, *after])
        except (TypeError, KeyError, ArithmeticError) as problem:
            raise Unheld(f"{type(problem).__name__}: {problem}") from problem
        finally:
            _restore(state, before)

    def stale(self) -> bool:
        """Whether weights lie elsewhere by now, or one that something was computed from was written to."""
        return self._weights.replaced() or any(x._version != version for x, version in self._marks)

    def __call__(self, ids: Tensor) -> Tensor:
        """The logits, in memory of their own."""
        if ids.shape != self.ids.shape:
            return self.call(ids)
        self.ids.copy_(ids)
        try:
            self.tape.replay()
        except ArithmeticError:
            # A kernel met what it cannot do, such as a full cache or an id beyond the table; the call itself
            # says what it was.
            return self.call(ids)
        return self.output.clone()


def _once(tensors: list[Tensor]) -> Iterator[Tensor]:
    seen: set[int] = set()
    for x in tensors:
        if id(x) not in seen and not x.is_inference():
            seen.add(id(x))
            yield x


def _restore(state: list[Tensor], values: list[Tensor]) -> None:
    for x, value in zip(state, values, strict=True):
        x.copy_(value)


def _compare(found: list[Tensor], expected: list[Tensor]) -> None:
    loosest = max(TOLERANCE.get(x.dtype, 0.0) for x in found)
    for x, y in zip(found, expected, strict=True):
        if not x.is_floating_point():
            agree = torch.equal(x, y)
        else:
            agree = x.numel() == 0 or bool((x - y).abs().max() <= loosest * y.abs().max())
        if not agree:
            raise Unheld("a replay of the token gave another result than the token itself")
