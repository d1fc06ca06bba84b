"""SSD's Triton kernels: the contract in the interpreter or on a GPU, other cuts, builds for three GPUs."""

from functools import partial

import pytest
import test_ssd
import torch

from hippodrome.ops import _triton
from hippodrome.ops.ssd import BACKENDS, ssd, ssd_packed, triton_
from hippodrome.ops.ssd.examples import inputs
from hippodrome.testing._op_case import leaf, pull, recording
from hippodrome.testing.ops import OpCase, _compare_on, close
from hippodrome.testing.triton_ import can_compile, check_compiles, check_triton, device

ALONG_TIME = ("x", "dt", "B", "C")
WHERE = device()
placed = pytest.mark.skipif(
    WHERE is None, reason="Triton has no GPU here, nor is it set to interpret kernels"
)


def case(chunk: int = 16, **sizes: int) -> OpCase:
    def examples(**settings):
        return tuple(z if z is None else z.to(WHERE) for z in inputs(**sizes, **settings))

    return OpCase(ssd, "triton", examples, ALONG_TIME, {"chunk": chunk})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device of one multiprocessor, for which a program takes all heads of a group."""
    monkeypatch.setattr(_triton, "processors", lambda x: 1)


def test_it_is_asked_first() -> None:
    assert BACKENDS[0] is triton_


@placed
@pytest.mark.triton
def test_contract(small) -> None:
    examples = partial(inputs, h=2, g=1)
    check_triton(ssd, examples, along_time=ALONG_TIME, options={"chunk": 16}, lengths=(37,))


@placed
@pytest.mark.triton
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 8])
def test_fixtures_computed_apart(small, chunk) -> None:
    with torch.device(WHERE):
        test_ssd.test_decay_of_one_half_gives_the_geometric_series("triton", 3.0, chunk)
        test_ssd.test_two_heads_of_eight_steps("triton", chunk)


@placed
@pytest.mark.triton
@pytest.mark.parametrize(("processors", "sizes"), [(1, (1, 33, 33)), (132, (3, 17, 5))], ids=str)
def test_sizes_beyond_one_tile_and_parts_of_groups(monkeypatch, processors, sizes) -> None:
    monkeypatch.setattr(_triton, "processors", lambda x: processors)
    wide = case(b=1, g=1, **dict(zip("hpn", sizes, strict=True)))
    _compare_on(wide, wide.arguments(20, torch.float32), 1e-5, "several tiles")


@placed
@pytest.mark.triton
def test_float64_to_twelve_digits_and_a_decay_that_would_cancel(small) -> None:
    one = case(b=1, h=2, g=1)
    arguments = one.arguments(37, torch.float64)
    _compare_on(one, arguments, 1e-12, "float64")
    strong = list(one.arguments(37, torch.float32))
    strong[1] = strong[1].clone()
    strong[1][:, 3:5] = 1000.0
    _compare_on(one, tuple(strong), 1e-5, "a strong decay inside a chunk")


@placed
@pytest.mark.triton
def test_gradients_of_gradients(small) -> None:
    one = case(b=1, h=1, g=1)
    found = []
    for backend in ("triton", "reference"):
        leaves = [z.requires_grad_() if z.is_floating_point() else z for z in one.arguments(5)]
        wanted = leaves[:-1]
        first = torch.autograd.grad(
            sum((y**2).sum() for y in one.run(leaves, backend)), wanted, create_graph=True
        )
        found.append(torch.autograd.grad(sum((g**3).sum() for g in first), wanted))
    for name, actual, expected in zip(one.names, *found, strict=False):
        close(actual, expected, 1e-9, name)


@placed
@pytest.mark.triton
def test_steps_may_stay_in_float32_beside_bfloat16(small) -> None:
    x, dt, A, B, C, D, state, resets = case(b=1, h=2, g=1).arguments(20, torch.float32)
    x, B, C = x.bfloat16(), B.bfloat16(), C.bfloat16()
    y, last = ssd(x, dt, A, B, C, D, state, resets, backend="triton")
    expected, expected_last = ssd(x, dt, A, B, C, D, state, resets, backend="reference")
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    close(y, expected, 1e-2, "y")
    close(last, expected_last, 1e-5, "last")


@placed
@pytest.mark.triton
def test_one_tensor_of_x_B_and_C_and_one_gradient(small) -> None:
    x, dt, A, B, C, D, state, resets = case(b=1, h=2, g=1).arguments(20, torch.float64)
    xBC = torch.cat([z.flatten(2) for z in (x, B, C)], -1)
    found = []
    for backend in ("triton", "reference"):
        leaves = [z.clone().requires_grad_() for z in (xBC, dt, A, D, state)]
        y, last = ssd_packed(*leaves, resets, groups=1, d_state=5, chunk=16, backend=backend)
        first = torch.autograd.grad((y**2).sum() + (last**3).sum(), leaves, create_graph=True)
        found.append((y, last, *first, *torch.autograd.grad(sum((z**2).sum() for z in first), leaves)))
    for actual, expected in zip(*found, strict=True):
        close(actual, expected, 1e-9, "packed")


@placed
@pytest.mark.triton
def test_nothing_to_do_gives_the_state_back() -> None:
    x, dt, A, B, C, D, state, _ = (
        z.to(WHERE).requires_grad_() if z is not None else z for z in inputs(t=1, with_resets=False)
    )
    y, last = ssd(x[:, :0], dt[:, :0], A, B[:, :0], C[:, :0], D, state, backend="triton")
    assert y.shape[1] == 0
    assert torch.equal(last, state)
    assert torch.equal(torch.autograd.grad(last.sum(), state)[0], torch.ones_like(state))


@placed
@pytest.mark.triton
def test_the_checks_at_first_use_pass(small) -> None:
    triton_._check(WHERE)
    triton_._check_halves(WHERE)


@placed
@pytest.mark.triton
def test_registration(small) -> None:
    one = case(b=1, h=2, g=1)
    leaves = tuple(leaf(z) for z in one.arguments(4, torch.float32))
    with recording() as calls:
        pull(leaves, one.run(leaves), one.names)
    assert len(calls) == 2
    for operator, arguments, keywords in calls.values():
        tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
        torch.library.opcheck(operator, tuple(leaf(z) for z in arguments), keywords, test_utils=tests)


@pytest.mark.cubin
@pytest.mark.parametrize(("dtype", "spilled"), [(torch.bfloat16, 256), (torch.float32, 512)], ids=str)
def test_kernels_compile(dtype, spilled) -> None:
    """For the shape of Mamba-2 130m, forward and backward; products of float32 in three parts spill some."""
    if not can_compile():
        pytest.skip("Triton is not installed here, or set to interpret kernels")
    x, dt, A, B, C, D, state, resets = inputs(1, 300, 24, 64, 128, 1, dtype=torch.float32)
    x, B, C = (z.to(dtype).requires_grad_() for z in (x, B, C))

    def call() -> None:
        y, last = triton_.ssd(x, dt, A, B, C, D, state, resets, 64)
        torch.autograd.grad([y, last], [x], [y, last])

    built = check_compiles(call)
    assert {one.kernel for one in built} == {"states", "outputs", "grad_inputs", "grad_directions"}
    assert max(one.spilled for one in built) <= spilled
