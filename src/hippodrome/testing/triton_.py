"""How Triton kernels are held to an op's contract, interpreted or on a GPU, and compiled without one."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hippodrome.testing import ops
from hippodrome.testing._op_case import Arguments, OpCase, close

CAPABILITIES = (80, 90, 100)
"""Ampere (A100), Hopper (H100, H200) and Blackwell (B200)."""

SHARED_MEMORY = {80: 166912, 90: 232448, 100: 232448}
"""Bytes of shared memory that one program may hold on each."""

LENGTHS = (1, 5, 37)


def device() -> torch.device | None:
    """Where Triton kernels run here: on the GPU, on the CPU where they are interpreted, or nowhere (None)."""
    try:
        import triton
    except ImportError:
        return None
    if triton.knobs.runtime.interpret:
        return torch.device("cpu")
    return torch.device("cuda") if torch.cuda.is_available() else None


def can_compile() -> bool:
    """Whether kernels can be compiled here: Triton is installed, and not set to interpret them."""
    try:
        import triton
    except ImportError:
        return False
    return not triton.knobs.runtime.interpret


def check_triton(
    door: Callable[..., Any],
    examples: Callable[..., Arguments],
    *,
    along_time: Sequence[str],
    options: Mapping[str, Any] | None = None,
    lengths: Iterable[int] = LENGTHS,
    more: Iterable[Callable[[OpCase], None]] = (),
) -> None:
    """Hold an op's Triton backend to the float64 definition: what of the contract kernels can break.

    Values, final state and every gradient in float32 at 1e-5 for each of ``lengths``, with an initial state
    and resets, with each optional argument left out, with other strides; storage in 16 bits; the same bits
    twice; gradients of gradients. ``more`` are checks of ``hippodrome.testing.ops`` to run besides. Other
    arguments as ``check_op``.
    """
    where = device()
    assert where is not None, "skip this test where `testing.triton_.device()` is None"
    case = OpCase(door, "triton", partial(_placed, examples, where), tuple(along_time), dict(options or {}))
    for t in lengths:
        ops._compare_on(case, case.arguments(t, torch.float32), ops.SINGLE, f"float32, t = {t}")
    for check in (check_optional, check_strides, check_halves, check_repeats, check_second_order, *more):
        check(case)


def check_values(
    door: Callable[..., Any],
    examples: Callable[..., Arguments],
    *,
    options: Mapping[str, Any] | None = None,
    lengths: Iterable[int] = LENGTHS,
) -> None:
    """Values, final state and gradients alone, float32 at 1e-5: for more shapes, after ``check_triton``."""
    where = device()
    assert where is not None, "skip this test where `testing.triton_.device()` is None"
    case = OpCase(door, "triton", partial(_placed, examples, where), (), dict(options or {}))
    for t in lengths:
        ops._compare_on(case, case.arguments(t, torch.float32), ops.SINGLE, f"float32, t = {t}")


def check_long(
    door: Callable[..., Any], arguments: Sequence[Tensor | None], *, options: Mapping[str, Any] | None = None
) -> None:
    """Values and gradients in float32 against the torch backend's in float64: for rows too long to step."""
    results = []
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        leaves = [
            x if x is None or not x.is_floating_point() else x.detach().to(dtype, copy=True).requires_grad_()
            for x in arguments
        ]
        outputs = door(*leaves, backend=backend, **dict(options or {}))
        total = torch.stack([(y.double() * torch.sin(y.detach().double())).sum() for y in outputs]).sum()
        wanted = [x for x in leaves if x is not None and x.requires_grad]
        results.append([*outputs, *torch.autograd.grad(total, wanted)])
    for i, (actual, expected) in enumerate(zip(*results, strict=True)):
        close(actual.detach(), expected.detach(), ops.SINGLE, f"result {i} of a long row")


def check_optional(case: OpCase) -> None:
    """Every optional argument may be left out."""
    names, arguments = ops.optional_arguments(case), case.arguments(6, torch.float32)
    for absent in [*([name] for name in names), names]:
        some = tuple(None if name in absent else x for name, x in zip(case.names, arguments, strict=True))
        ops._compare_on(case, some, ops.SINGLE, f"without {', '.join(absent) or 'nothing'}")


def check_strides(case: OpCase) -> None:
    """Slices of wider tensors and transposed storage give what contiguous arguments give."""
    plain = case.arguments(7, torch.float32)
    for how in (ops.slice_of_wider, ops.transposed):
        ops._compare_on(case, tuple(how(x) for x in plain), ops.SINGLE, how.__name__)


def check_halves(case: OpCase) -> None:
    """bfloat16 and float16 storage give outputs of that dtype, near the definition's on the same numbers."""
    for dtype in (torch.bfloat16, torch.float16):
        arguments = tuple(
            x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in case.arguments(9)
        )
        expected = case.run(arguments, "reference")
        for i, (y, value) in enumerate(zip(case.run(arguments), expected, strict=True)):
            if y.dtype != value.dtype:
                raise AssertionError(f"{case.backend}: {dtype}: output {i} is {y.dtype}, not {value.dtype}.")
            close(y, value, ops.HALF, f"{case.backend}: {dtype}, output {i}")
        gradients = case.gradients(arguments, "reference")
        for name, value in case.gradients(arguments).items():
            close(value, gradients[name], ops.HALF, f"{case.backend}: {dtype}, gradient to {name}")


def check_repeats(case: OpCase) -> None:
    """The same call twice gives the same bits, gradients included."""
    arguments = case.arguments(12, torch.float32)
    first, second = ([*case.run(arguments), *case.gradients(arguments).values()] for _ in range(2))
    if not all(torch.equal(x, y) for x, y in zip(first, second, strict=True)):
        raise AssertionError(f"{case.backend}: the same call twice gives different bits.")


def check_second_order(case: OpCase) -> None:
    """Gradients of a function of the gradients equal the definition's, in float64."""
    found = [_second_order(case, case.arguments(4), backend) for backend in (case.backend, "reference")]
    for name, value in found[1].items():
        close(found[0][name], value, ops.DOUBLE, f"{case.backend}: gradient of gradients to {name}")


def _second_order(case: OpCase, arguments: Arguments, backend: str) -> dict[str, Tensor]:
    leaves = tuple(ops.leaf(x) for x in arguments)
    wanted = {n: x for n, x in zip(case.names, leaves, strict=True) if x is not None and x.requires_grad}
    values = list(wanted.values())
    total = torch.stack([(y * y).sum() for y in case.run(leaves, backend)]).sum()
    first = torch.autograd.grad(total, values, create_graph=True)
    again = torch.stack([(g * g).sum() for g in first]).sum()
    second = torch.autograd.grad(again, values, allow_unused=True)
    return {
        n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(wanted.items(), second, strict=True)
    }


def _placed(examples: Callable[..., Arguments], where: torch.device, **settings: Any) -> Arguments:
    return tuple(x.to(where) if isinstance(x, Tensor) else x for x in examples(**settings))


class Cubin(NamedTuple):
    """One kernel as it was compiled for one architecture."""

    kernel: str
    capability: int
    warps: int
    shared: int
    """Bytes of shared memory of one program."""
    registers: int
    """Registers of one thread."""
    spilled: int
    """Bytes of local memory of one thread: registers that did not fit, or arrays."""
    code: bytes


@contextmanager
def compiling(capability: int) -> Iterator[list[Cubin]]:
    """Within, a launch of a kernel compiles it for that architecture and runs nothing; no GPU is needed.

    Call the backend's own function within (the door refuses CPU tensors), with arguments of the shapes and
    dtypes that count, on the CPU; its outputs are whatever memory held. The list fills with what was built.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import JITFunction, create_function_from_signature

    target, built, seen = GPUTarget("cuda", capability, 32), [], set()
    backend, run = make_backend(target), JITFunction.run

    def build(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kwargs.setdefault("debug", False)
        bind = create_function_from_signature(self.signature, self.params, backend)
        bound, specialization, options = bind(*args, **kwargs)
        key = (self.__name__, str(specialization), str(options))
        if key in seen:
            return
        seen.add(key)
        options, signature, constants, attributes = self._pack_args(
            backend, kwargs, bound, specialization, options
        )
        source = ASTSource(self, signature, constants, attributes)
        kernel = triton.compile(source, target=target, options=options.__dict__)
        facts, code = kernel.metadata, kernel.asm["cubin"]
        built.append(Cubin(self.__name__, capability, facts.num_warps, facts.shared, *_registers(code), code))

    JITFunction.run = build
    try:
        yield built
    finally:
        JITFunction.run = run


def check_compiles(call: Callable[[], object], capabilities: Iterable[int] = CAPABILITIES) -> list[Cubin]:
    """Build every kernel that ``call`` launches, for each architecture, and hold it to the memory there is.

    ``call`` should run forward and backward. Returns what was built, so that a test can ask for more.
    """
    built = []
    for capability in capabilities:
        with compiling(capability) as found:
            call()
        if not found:
            raise AssertionError("the call launched no Triton kernel.")
        for cubin in found:
            if cubin.shared > SHARED_MEMORY[capability]:
                raise AssertionError(
                    f"{cubin.kernel} wants {cubin.shared} bytes of shared memory; sm_{capability} has "
                    f"{SHARED_MEMORY[capability]}."
                )
        built += found
    return built


def _registers(code: bytes) -> tuple[int, int]:
    """Registers and bytes of local memory of one thread, as the disassembler beside Triton tells them."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)
        command = [str(tool), "--dump-resource-usage", str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = {name: int(re.search(rf"{name}:(\d+)", said)[1]) for name in ("REG", "STACK", "LOCAL")}  # type: ignore[index]
    return words["REG"], max(words["STACK"], words["LOCAL"])


def loaded() -> bool:
    """Whether this process has imported Triton."""
    return "triton" in sys.modules
