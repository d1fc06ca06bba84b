"""What the doors to Triton kernels share: where they run, which devices are trusted, helpers of launches.

Triton comes with the CUDA builds of PyTorch and is imported by the ``_triton_kernel`` modules alone, in an
op's body. Nothing here imports it: a call on CPU tensors costs a look at their device.
"""

import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Storage that the kernels take; 16-bit numbers are widened to float32 right after they are read."""

MEASURED: tuple[tuple[int, int], ...] = ()
"""Compute capabilities on which the tests have passed on a real device; on any other one every op checks
itself once. No GPU was at hand when the kernels were written, so there is none yet."""

INTERPRETER = -1
"""The device index of CPU tensors, which only Triton's interpreter runs."""

CAPABILITY = (9, 0)
"""The compute capability and the number of multiprocessors by which kernels are cut up in the interpreter."""
PROCESSORS = 132

Check = Callable[[torch.device], None]
Function = TypeVar("Function", bound=Callable[..., Any])
_VERDICTS: dict[tuple[str, int], str | None] = {}
_LOCK = threading.Lock()
_HERE = threading.local()


def _constant(function: Function) -> Function:
    """As ``torch.compiler.assume_constant_result`` does it, but without seconds of importing the compiler."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def interpreted() -> bool:
    """Whether Triton is loaded and set to interpret kernels, which is how they run on CPU tensors."""
    triton = sys.modules.get("triton")
    return triton is not None and bool(triton.knobs.runtime.interpret)


@_constant
def installed() -> bool:
    """Whether Triton can be imported; CUDA builds of PyTorch for Linux bring it, those for Windows do not."""
    return _spec() is not None


@lru_cache(maxsize=1)
def _spec() -> object:
    return importlib.util.find_spec("triton")


def refusal(*tensors: Tensor | None) -> str | None:
    """Why Triton kernels cannot take these tensors, from devices and dtypes alone; None where they can."""
    first = None
    for x in tensors:
        if x is None:
            continue
        kind = x.device.type
        if kind != "cuda" and not (kind == "cpu" and interpreted()):
            return f"the Triton kernels run on CUDA devices, and a tensor is on {x.device}."
        if first is not None and x.device != first.device:
            return f"the Triton kernels want all tensors on one device; got {first.device} and {x.device}."
        if x.is_floating_point() and x.dtype not in DTYPES:
            return f"the Triton kernels take float32, bfloat16, float16 and float64; got {x.dtype}."
        first = x
    if not installed():
        return "the package triton is not installed; on Linux the CUDA builds of PyTorch bring it."
    return None


def device_index(*tensors: Tensor | None) -> int:
    """The index of the CUDA device that holds these tensors, or ``INTERPRETER`` on the CPU."""
    for x in tensors:
        if x is not None:
            return x.device.index if x.device.type == "cuda" else INTERPRETER
    return INTERPRETER


@_constant
def trusted(name: str, index: int, check: Check) -> str | None:
    """Why an op's kernels are not used on a device, or None: found out once, at the op's first use there.

    On a compute capability that is not ``MEASURED``, ``check(device)`` runs the op's small examples through
    the kernels and through the torch backend and raises where they differ. Should it raise, whatever the
    reason, a warning says so once, and the op refuses this device for the rest of the process.

    The check runs in a thread of its own, so that nothing of the caller's surroundings reaches it: fake
    tensors and tracing under ``torch.compile`` and ``torch.export`` (which ask here while they trace and keep
    the answer as a constant), autocast, inference mode, the inside of another custom op. In two places it
    cannot run: while a CUDA graph is captured, when nothing may be allocated or compiled, and inside a
    backward pass, whose worker it would wait for. An op whose first use falls there goes to the torch backend
    for that call, with a warning, and checks itself at the next: call it once before a capture.
    """
    if index == INTERPRETER or getattr(_HERE, "checking", False):
        return None
    key = (name, index)
    if key not in _VERDICTS:
        where = "the capture of a CUDA graph" if _capturing() else "a backward pass" if _in_backward() else ""
        if where:
            sentence = (
                f"the Triton kernels of {name} have not been checked on cuda:{index} yet, and cannot be "
                f"during {where}; the torch backend is used for this call. Call the op once before."
            )
            warnings.warn(sentence, stacklevel=2)
            return sentence
        with _LOCK:
            if key not in _VERDICTS:
                _VERDICTS[key] = _verdict(name, torch.device("cuda", index), check)
    return _VERDICTS[key]


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _verdict(name: str, device: torch.device, check: Check) -> str | None:
    """Run a check in a thread of its own; the sentence of refusal where it raises, said once as a warning."""
    problems: list[BaseException] = []

    def work() -> None:
        _HERE.checking = True
        try:
            if device.type != "cuda":
                check(device)
            elif torch.cuda.get_device_capability(device) not in MEASURED:
                with torch.cuda.device(device):
                    check(device)
        except Exception as problem:
            problems.append(problem)

    thread = threading.Thread(target=work, name=f"hippodrome-check-{name}")
    thread.start()
    thread.join()
    if not problems:
        return None
    words = " ".join(str(problems[0]).split())[:300]
    sentence = (
        f"the Triton kernels of {name} failed their self-check on {_title(device)} "
        f"({type(problems[0]).__name__}: {words}); the torch backend is used there instead."
    )
    warnings.warn(sentence, stacklevel=4)
    return sentence


def _title(device: torch.device) -> str:
    """The device and, where it can be asked, its name and compute capability."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return str(device)
    major, minor = torch.cuda.get_device_capability(device)
    return f"{device}, {torch.cuda.get_device_name(device)} of compute capability {major}.{minor}"


def agree(
    fast: Callable[..., Sequence[Tensor]],
    plain: Callable[..., Sequence[Tensor]],
    arguments: Sequence[Tensor | None],
    device: torch.device,
    tolerance: float = 1e-4,
) -> None:
    """The body of a self-check: values and gradients of two backends on the same arguments, in float32.

    ``fast`` and ``plain`` take the arguments in order and return tensors; the plain one runs in float64 on
    the same numbers, so that the tolerance is for the kernels alone.

    Raises:
        ArithmeticError: an output or a gradient differs by more than the tolerance times its largest value.
    """
    fast_ones = _pulled(fast, arguments, device, torch.float32)
    plain_ones = _pulled(plain, arguments, device, torch.float64)
    for (what, actual), (_, expected) in zip(fast_ones, plain_ones, strict=True):
        scale = expected.abs().max().item() if expected.numel() else 0.0
        error = (actual.double() - expected).abs().max().item() if expected.numel() else 0.0
        if not error <= tolerance * scale:
            raise ArithmeticError(f"{what} is off by {error:.1e} where the largest value is {scale:.1e}")


def _pulled(
    run: Callable[..., Sequence[Tensor]],
    arguments: Sequence[Tensor | None],
    device: torch.device,
    dtype: torch.dtype,
) -> list[tuple[str, Tensor]]:
    """Outputs of a call and the gradients of a fixed weighting of them, each with what it is."""
    leaves: list[Tensor | None] = []
    wanted: dict[int, Tensor] = {}
    for i, x in enumerate(arguments):
        if x is not None and x.is_floating_point():
            x = wanted[i] = x.detach().float().to(device, dtype).requires_grad_()
        leaves.append(x if x is None else x.to(device))
    outputs = run(*leaves)
    weights = [torch.linspace(-1.0, 2.0, max(y.numel(), 1), device=device)[: y.numel()] for y in outputs]
    pairs = zip(outputs, weights, strict=True)
    total = torch.stack([(y.to(dtype) * w.view(y.shape).to(dtype)).sum() for y, w in pairs]).sum()
    gradients = torch.autograd.grad(total, list(wanted.values()))
    named = [(f"output {i}", y.detach()) for i, y in enumerate(outputs)]
    return named + [(f"the gradient to argument {i}", g) for i, g in zip(wanted, gradients, strict=True)]


@lru_cache(maxsize=64)
def _properties(index: int) -> tuple[tuple[int, int], int]:
    if index == INTERPRETER:
        return CAPABILITY, PROCESSORS
    facts = torch.cuda.get_device_properties(index)
    return (facts.major, facts.minor), facts.multi_processor_count


def capability(x: Tensor) -> tuple[int, int]:
    """The compute capability by which a kernel's fixed configuration is chosen."""
    return _properties(device_index(x))[0]


def processors(x: Tensor) -> int:
    """How many multiprocessors there are to fill."""
    return _properties(device_index(x))[1]


def on(x: Tensor) -> AbstractContextManager[object]:
    """Makes the tensor's device the current one: Triton launches on the current device's stream."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


def rows(x: Tensor) -> Tensor:
    """The tensor itself where its last axis is dense, else a copy; kernels take any strides of other axes."""
    return x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.contiguous()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of arithmetic and states for a dtype of storage: float64 stays, all else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def power(n: int) -> int:
    """The least power of two that is n or more."""
    return 1 << max(n - 1, 0).bit_length()
