"""The contract of an op: every backend against its definition, with states, resets, gradients and dtypes."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hippodrome.testing._op_case import (
    Arguments,
    OpCase,
    batched,
    close,
    cut,
    leaf,
    named,
    pull,
    recording,
    slice_of_wider,
    transposed,
    with_state,
    without,
)

DOUBLE, SINGLE, HALF = 1e-9, 1e-5, 3e-2


def check_float64(case: OpCase) -> None:
    """Outputs, final state and every gradient equal the definition's in float64."""
    _compare(case, torch.float64, DOUBLE)


def check_float32(case: OpCase) -> None:
    """The same in float32, against the definition in float64 on the same numbers."""
    _compare(case, torch.float32, SINGLE)


def check_optional(case: OpCase) -> None:
    """Every optional argument may be left out, alone and all together."""
    optional, arguments = optional_arguments(case), case.arguments(11)
    for absent in [*([name] for name in optional), optional]:
        some = tuple(None if name in absent else x for name, x in zip(case.names, arguments, strict=True))
        _compare_on(case, some, DOUBLE, f"without {', '.join(absent) or 'nothing'}")


def optional_arguments(case: OpCase) -> list[str]:
    """Names of the door's tensors that may be None."""
    optional = [p.name for p in inspect.signature(case.door).parameters.values() if p.default is None]
    return [name for name in optional if name in case.names]


def check_gradient_parts(case: OpCase) -> None:
    """A gradient of one output alone, and one of a single argument alone, are those of the whole."""
    arguments = case.arguments(9)
    for i in range(len(case.run(arguments))):
        expected = case.gradients(arguments, "reference", [i])
        actual = case.gradients(arguments, outputs=[i])
        for name, value in expected.items():
            close(actual[name], value, DOUBLE, f"{case.backend}: gradient of output {i} to {name}")
    expected = case.gradients(arguments, "reference")
    for i, name in enumerate(case.names):
        if name in expected:
            alone = tuple(leaf(x) if j == i else x for j, x in enumerate(arguments))
            actual = pull(alone, case.run(alone), case.names)
            close(actual[name], expected[name], DOUBLE, f"{case.backend}: gradient to {name} alone")


def check_chunks_join(case: OpCase) -> None:
    """Cut in pieces that hand the state on, the op gives the same outputs, state and gradients."""
    if not case.has_state:
        return
    t, arguments = 37, case.arguments(37)
    whole = case.run(arguments)
    expected = case.gradients(arguments)
    for cuts in ([0, 1, 20, t], [0, 16, 32, t], [0, t - 1, t]):
        leaves = tuple(leaf(x) for x in arguments)
        state = leaves[case.names.index("initial_state")]
        pieces = []
        for first, last in pairwise(cuts):
            y, state = case.run(with_state(case, cut(case, leaves, first, last), state))
            pieces.append(y)
        y = torch.cat(pieces, 1)
        close(y, whole[0], DOUBLE, f"{case.backend}: outputs of pieces {cuts}")
        close(state, whole[1], DOUBLE, f"{case.backend}: final state of pieces {cuts}")
        for name, value in pull(leaves, [y, state], case.names).items():
            close(value, expected[name], DOUBLE, f"{case.backend}: gradient to {name} through pieces {cuts}")


def check_resets(case: OpCase) -> None:
    """A reset splits a row into runs of their own, of which only the first sees the initial state."""
    if "resets" not in case.names:
        return
    t, arguments = 37, case.arguments(37)
    resets = arguments[case.names.index("resets")]
    whole = case.run(arguments)
    for row in range(resets.shape[0]):
        one = tuple(x[row : row + 1] if batched(case, name, x) else x for name, x in named(case, arguments))
        starts = [0, *[i for i in range(1, t) if resets[row, i]], t]
        pieces = []
        for first, last in pairwise(starts):
            piece = without(case, cut(case, one, first, last), "resets")
            if case.has_state and (first > 0 or resets[row, 0]):
                piece = without(case, piece, "initial_state")
            results = case.run(piece)
            pieces.append(results[0])
        close(
            whole[0][row : row + 1], torch.cat(pieces, 1), DOUBLE, f"{case.backend}: separate runs of {row}"
        )
        if case.has_state:
            close(whole[1][row : row + 1], results[1], DOUBLE, f"{case.backend}: last run's state, row {row}")


def check_gradcheck(case: OpCase) -> None:
    """Gradients agree with finite differences."""
    _finite_differences(case, torch.autograd.gradcheck, fast_mode=False)


def check_double_backward(case: OpCase) -> None:
    """Gradients of gradients agree with finite differences, in eager mode."""
    _finite_differences(case, torch.autograd.gradgradcheck, fast_mode=True)


def check_single_step(case: OpCase) -> None:
    """One step is enough."""
    _compare_on(case, case.arguments(1), DOUBLE, "t = 1")


def check_strides(case: OpCase) -> None:
    """Arguments of any strides give what contiguous ones give, and gradients too."""
    plain = case.arguments(13)
    for how, strided in {
        "slices of a wider tensor": tuple(slice_of_wider(x) for x in plain),
        "transposed storage": tuple(transposed(x) for x in plain),
    }.items():
        for actual, expected in zip(case.run(strided), case.run(plain), strict=True):
            close(actual, expected, DOUBLE, f"{case.backend}: {how}")
        leaves = tuple(leaf(x) for x in plain)
        views = tuple(x if not isinstance(x, Tensor) else transposed(x) for x in leaves)
        expected_gradients = case.gradients(plain)
        for name, value in pull(leaves, case.run(views), case.names).items():
            close(value, expected_gradients[name], DOUBLE, f"{case.backend}: {how}: gradient to {name}")


def check_purity(case: OpCase) -> None:
    """Arguments are left as they were, and no output shares their memory."""
    arguments = case.arguments(5)
    before = [x.clone() if isinstance(x, Tensor) else x for x in arguments]
    outputs = case.run(arguments)
    held = {x.untyped_storage().data_ptr() for x in arguments if isinstance(x, Tensor)}
    for y in outputs:
        if y.untyped_storage().data_ptr() in held:
            raise AssertionError(f"{case.backend}: an output shares the memory of an argument.")
    for name, x, old in zip(case.names, arguments, before, strict=True):
        if isinstance(x, Tensor) and not torch.equal(x, old):
            raise AssertionError(f"{case.backend}: the argument {name} was changed.")


def check_bfloat16(case: OpCase) -> None:
    """bfloat16 arguments give bfloat16 outputs near the definition's, and a state of at least float32."""
    arguments = tuple(
        x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x for x in case.arguments(23)
    )
    outputs, expected = case.run(arguments), case.run(arguments, "reference")
    for i, (y, value) in enumerate(zip(outputs, expected, strict=True)):
        if y.dtype != (torch.bfloat16 if i == 0 else value.dtype):
            raise AssertionError(f"{case.backend}: output {i} of bfloat16 arguments is {y.dtype}.")
        close(y, value, HALF, f"{case.backend}: bfloat16, output {i}")
    expected_gradients = case.gradients(arguments, "reference")
    for name, value in case.gradients(arguments).items():
        close(value, expected_gradients[name], HALF, f"{case.backend}: bfloat16, gradient to {name}")


def check_storage(case: OpCase) -> None:
    """bfloat16 is storage alone: on the same numbers, results are off by one rounding and float32's error.

    What runs along time comes in bfloat16, all else in float32. An output or gradient has the dtype of the
    argument that it belongs to, and is as far as half a unit in its own last place from the definition in
    float64 where that is bfloat16, and ``SINGLE`` of the largest value besides.
    """
    generator = torch.Generator().manual_seed(3)
    for t in (1, 37, 150):
        what = f"{case.backend}: bfloat16 as storage, t = {t}"
        arguments = tuple(
            x.bfloat16() if name in case.along_time and isinstance(x, Tensor) else x
            for name, x in named(case, case.arguments(t, torch.float32))
        )
        leaves = tuple(leaf(x) for x in arguments)
        exact = tuple(
            leaf(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x) for x in arguments
        )
        results, expected = case.run(leaves), case.run(exact, "reference")
        weights = [torch.randn(y.shape, generator=generator).to(y.dtype) for y in results]
        wanted = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.requires_grad]
        gradients = torch.autograd.grad(results, [leaves[i] for i in wanted], weights)
        exact_gradients = torch.autograd.grad(
            expected, [exact[i] for i in wanted], [w.double() for w in weights]
        )
        for i, (y, value) in enumerate(zip(results, expected, strict=True)):
            _one_rounding(y, value, torch.float32 if i else torch.bfloat16, f"{what}: output {i}")
        for i, g, value in zip(wanted, gradients, exact_gradients, strict=True):
            _one_rounding(g, value, arguments[i].dtype, f"{what}: gradient to {case.names[i]}")


def _one_rounding(actual: Tensor, expected: Tensor, dtype: torch.dtype, what: str) -> None:
    if actual.dtype != dtype:
        raise AssertionError(f"{what}: came as {actual.dtype}, not {dtype}.")
    if not expected.numel():
        return
    half_unit = torch.finfo(torch.bfloat16).eps / 2 if dtype == torch.bfloat16 else 0.0
    allowed = half_unit * expected.abs() + SINGLE * expected.abs().max()
    excess = ((actual.double() - expected).abs() - allowed).max().item()
    if not excess <= 0:
        raise AssertionError(f"{what}: off by {excess:.3e} more than one rounding and float32's error.")


def check_autocast(case: OpCase) -> None:
    """Under autocast to bfloat16 outputs and gradients stay finite and close."""
    arguments = case.arguments(23, torch.float32)
    expected, expected_gradients = case.run(arguments, "reference"), case.gradients(arguments, "reference")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for y, value in zip(case.run(arguments), expected, strict=True):
            close(y, value, HALF, f"{case.backend}: autocast")
        for name, value in case.gradients(arguments).items():
            close(value, expected_gradients[name], HALF, f"{case.backend}: autocast, gradient to {name}")


def check_nan(case: OpCase) -> None:
    """A NaN in any argument shows in the outputs: divergence is never hidden."""
    for dtype in (torch.float32, torch.float64):
        arguments = without(case, case.arguments(7, dtype), "resets")
        for i, name in enumerate(case.names):
            if isinstance(arguments[i], Tensor):
                broken = arguments[i].clone()
                broken.view(-1)[0] = float("nan")
                outputs = case.run((*arguments[:i], broken, *arguments[i + 1 :]))
                if not any(y.isnan().any() for y in outputs):
                    raise AssertionError(f"{case.backend}: a NaN in {name} ({dtype}) reaches no output.")


def check_threads(case: OpCase) -> None:
    """Outputs and gradients are the same to the bit from run to run and whatever the number of threads."""
    before = torch.get_num_threads()
    for dtype in (torch.float32, torch.bfloat16):
        single = case.arguments(37, torch.float32)
        arguments = tuple(
            x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in single
        )
        seen = []
        try:
            for threads in (1, 2, 3, 2):
                torch.set_num_threads(threads)
                seen.append([*case.run(arguments), *case.gradients(arguments).values()])
        finally:
            torch.set_num_threads(before)
        for other in seen[1:]:
            if not all(torch.equal(x, y) for x, y in zip(seen[0], other, strict=True)):
                raise AssertionError(f"{case.backend}: {dtype} results depend on the number of threads.")


def check_registration(case: OpCase) -> None:
    """``torch.library.opcheck`` passes for each custom op that a forward and a backward call."""
    leaves = tuple(leaf(x) for x in case.arguments(4))
    with recording() as calls:
        pull(leaves, case.run(leaves), case.names)
    for operator, arguments, keywords in calls.values():
        torch.library.opcheck(operator, tuple(leaf(x) for x in arguments), keywords)


CHECKS: tuple[Callable[[OpCase], None], ...] = (
    check_float64,
    check_float32,
    check_optional,
    check_gradient_parts,
    check_chunks_join,
    check_resets,
    check_gradcheck,
    check_double_backward,
    check_single_step,
    check_strides,
    check_purity,
    check_bfloat16,
    check_autocast,
    check_nan,
    check_threads,
    check_registration,
)


def names(backends: Iterable[ModuleType]) -> list[str]:
    """Names of the backends that run on the CPU as it stands: all but Triton's, tested apart."""
    return [backend.NAME for backend in backends if backend.NAME != "triton"]


def check_op(
    door: Callable[..., Any],
    backends: Iterable[str | ModuleType],
    examples: Callable[..., Arguments],
    *,
    along_time: Sequence[str],
    options: Mapping[str, Any] | None = None,
    checks: Iterable[Callable[[OpCase], None]] = CHECKS,
) -> None:
    """Hold backends of an op to the contract of ops; raises AssertionError with the check's own sentence.

    Args:
        door: the op's function; its positional arguments are tensors (or None), ``initial_state`` and
            ``resets`` under those names where it has them; it returns y, or (y, final state).
        backends: names or modules of the backends to check; "reference" is the oracle of all.
        examples: ``examples(t=..., dtype=...) -> arguments in the door's order``, with none left out.
            Use ``functools.partial`` for other sizes.
        along_time: names of the arguments whose axis 1 is time.
        options: keywords for the door.
        checks: some of ``CHECKS``, each ``check(case) -> None``.
    """
    for backend in backends:
        name = backend if isinstance(backend, str) else backend.NAME
        case = OpCase(door, name, examples, tuple(along_time), dict(options or {}))
        for check in checks:
            check(case)


def _compare(case: OpCase, dtype: torch.dtype, tolerance: float) -> None:
    for t in (37, 64, 150):
        _compare_on(case, case.arguments(t, dtype), tolerance, f"{dtype}, t = {t}")


def _compare_on(case: OpCase, arguments: Arguments, tolerance: float, what: str) -> None:
    pairs = zip(case.run(arguments), case.run(arguments, "reference"), strict=True)
    for i, (y, expected) in enumerate(pairs):
        if y.dtype != expected.dtype:
            raise AssertionError(f"{case.backend}: {what}: output {i} is {y.dtype}, not {expected.dtype}.")
        close(y, expected, tolerance, f"{case.backend}: {what}: output {i}")
    expected_gradients = case.gradients(arguments, "reference")
    for name, value in case.gradients(arguments).items():
        close(value, expected_gradients[name], tolerance, f"{case.backend}: {what}: gradient to {name}")


def _finite_differences(case: OpCase, check: Callable[..., bool], *, fast_mode: bool) -> None:
    leaves = tuple(leaf(x) for x in case.arguments(5))
    check(lambda *x: case.run(x), leaves, fast_mode=fast_mode, atol=1e-6, rtol=1e-4)


__all__ = ["CHECKS", "OpCase", "check_op", "close", "names"]
