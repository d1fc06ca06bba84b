"""The causal convolution's Triton kernels: the contract where they run, more taps, builds for three GPUs."""

import pytest
import torch

from hippodrome.ops.causal_conv import BACKENDS, causal_conv, triton_
from hippodrome.ops.causal_conv.examples import inputs
from hippodrome.testing._op_case import leaf, pull, recording
from hippodrome.testing.ops import OpCase, _compare_on, close
from hippodrome.testing.triton_ import can_compile, check_compiles, check_triton, device

WHERE = device()
placed = pytest.mark.skipif(
    WHERE is None, reason="Triton has no GPU here, nor is it set to interpret kernels"
)


def case(activation: str | None = "silu", **sizes: int) -> OpCase:
    def examples(**settings):
        return tuple(z if z is None else z.to(WHERE) for z in inputs(**sizes, **settings))

    return OpCase(causal_conv, "triton", examples, ("x",), {"activation": activation})


def test_it_is_asked_first() -> None:
    assert BACKENDS[0] is triton_


@placed
@pytest.mark.triton
@pytest.mark.parametrize("activation", [None, "silu"])
def test_contract(activation) -> None:
    options = {"activation": activation}
    check_triton(causal_conv, inputs, along_time=("x",), options=options, lengths=(1, 2, 37))


@placed
@pytest.mark.triton
@pytest.mark.parametrize(
    "sizes", [{"w": 1, "b": 1}, {"w": 2, "d": 70, "b": 1}, {"w": 35, "d": 1, "b": 1}], ids=str
)
def test_any_number_of_taps_and_channels(sizes) -> None:
    one = case(**sizes)
    _compare_on(one, one.arguments(40, torch.float32), 1e-5, str(sizes))


@placed
@pytest.mark.triton
def test_float64_and_gradients_of_gradients() -> None:
    one = case()
    _compare_on(one, one.arguments(33, torch.float64), 1e-12, "float64")
    found = []
    for backend in ("triton", "reference"):
        leaves = [z.requires_grad_() if z.is_floating_point() else z for z in one.arguments(5)]
        outputs = one.run(leaves, backend)
        first = torch.autograd.grad(sum((y**2).sum() for y in outputs), leaves[:-1], create_graph=True)
        found.append(torch.autograd.grad(sum((g**3).sum() for g in first), leaves[:-1]))
    for name, actual, expected in zip(one.names, *found, strict=False):
        close(actual, expected, 1e-9, name)


@placed
@pytest.mark.triton
def test_weights_may_stay_in_float32_beside_bfloat16() -> None:
    x, weight, bias, state, resets = case().arguments(9, torch.float32)
    x, leaf = x.bfloat16(), weight.T.contiguous().T.requires_grad_()
    y, last = causal_conv(x, leaf, bias, state, resets, backend="triton")
    expected, expected_last = causal_conv(x, weight, bias, state, resets, backend="reference")
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    close(y, expected, 1e-2, "y")
    close(last, expected_last, 1e-6, "last")
    assert torch.autograd.grad(y.sum(), leaf)[0].dtype == torch.float32


@placed
@pytest.mark.triton
def test_a_reset_hides_what_is_not_a_number() -> None:
    x, weight, bias, state, _ = (z if z is None else z.to(WHERE) for z in inputs(b=1, t=6, d=2))
    resets = torch.zeros(1, 6, dtype=torch.bool, device=WHERE)
    resets[0, 4] = True
    spoiled = x.clone()
    spoiled[:, :4] = torch.nan
    y, last = causal_conv(spoiled, weight, bias, state, resets, backend="triton")
    fresh, _ = causal_conv(x[:, 4:], weight, bias, backend="triton")
    assert torch.equal(y[:, 4:], fresh)
    assert torch.equal(last, torch.cat([x.new_zeros(1, 1, 2), x[:, 4:]], 1))


@placed
@pytest.mark.triton
def test_the_check_at_first_use_passes() -> None:
    triton_._check(WHERE)


@placed
@pytest.mark.triton
def test_registration() -> None:
    one = case(b=1)
    leaves = tuple(leaf(z) for z in one.arguments(4, torch.float32))
    with recording() as calls:
        pull(leaves, one.run(leaves), one.names)
    assert len(calls) == 2
    for operator, arguments, keywords in calls.values():
        tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
        torch.library.opcheck(operator, tuple(leaf(z) for z in arguments), keywords, test_utils=tests)


@pytest.mark.cubin
@pytest.mark.parametrize("w", [4, 5])
def test_kernels_compile(w) -> None:
    if not can_compile():
        pytest.skip("Triton is not installed here, or set to interpret kernels")
    x, weight, bias, state, resets = inputs(1, 300, 1536, w, dtype=torch.float32)
    x = x.bfloat16().requires_grad_()

    def call() -> None:
        y, last = triton_.causal_conv(x, weight, bias, state, resets, True)
        torch.autograd.grad([y, last], [x], [y, last])

    built = check_compiles(call)
    assert {one.kernel for one in built} == {"forward", "backward", *(["slopes"] if w > 4 else [])}
    assert max(one.spilled for one in built) <= 32
