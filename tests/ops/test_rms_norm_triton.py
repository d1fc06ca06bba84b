"""The root-mean-square norm's Triton kernels: the contract, other sizes, builds for three GPUs."""

from functools import partial

import pytest
import torch

from hippodrome.ops import _triton
from hippodrome.ops.rms_norm import BACKENDS, rms_norm, triton_
from hippodrome.ops.rms_norm.examples import inputs
from hippodrome.testing._op_case import leaf, pull, recording
from hippodrome.testing.ops import OpCase, _compare_on, close
from hippodrome.testing.triton_ import can_compile, check_compiles, check_triton, device

WHERE = device()
placed = pytest.mark.skipif(
    WHERE is None, reason="Triton has no GPU here, nor is it set to interpret kernels"
)


def case(groups: int = 1, **sizes) -> OpCase:
    def examples(**settings):
        return tuple(z if z is None else z.to(WHERE) for z in inputs(**sizes, **settings))

    return OpCase(rms_norm, "triton", examples, ("x", "z"), {"groups": groups, "eps": 1e-3})


def test_it_is_asked_first() -> None:
    assert BACKENDS[0] is triton_


def test_rows_too_long_to_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "refusal", lambda *tensors: None)
    assert "40000" in str(triton_.refusal(torch.ones(1, 40000, device="meta"), None))


@placed
@pytest.mark.triton
@pytest.mark.parametrize("groups", [1, 3])
def test_contract(groups) -> None:
    options = {"groups": groups, "eps": 1e-3}
    check_triton(rms_norm, inputs, along_time=("x", "z"), options=options, lengths=(1, 37))


@placed
@pytest.mark.triton
@pytest.mark.parametrize(("d", "groups"), [(1, 1), (40, 2), (300, 3), (3000, 1)])
def test_sizes_around_a_power_of_two(monkeypatch, d, groups) -> None:
    monkeypatch.setattr(_triton, "processors", lambda x: 1)
    one = case(groups, d=d, b=1)
    _compare_on(one, one.arguments(7, torch.float32), 1e-5, f"d = {d}, {groups} groups")


@placed
@pytest.mark.triton
def test_float64_and_gradients_of_gradients() -> None:
    one = case(2)
    _compare_on(one, one.arguments(70, torch.float64), 1e-12, "float64")
    found = []
    for backend in ("triton", "reference"):
        leaves = [z.requires_grad_() for z in one.arguments(5)]
        first = torch.autograd.grad((one.run(leaves, backend)[0] ** 2).sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum((g**3).sum() for g in first), leaves))
    for name, actual, expected in zip(one.names, *found, strict=True):
        close(actual, expected, 1e-9, name)


@placed
@pytest.mark.triton
def test_without_eps_what_lies_beyond_the_rows_counts_for_nothing() -> None:
    x, weight, _ = (z.to(WHERE) for z in inputs(b=1, t=3))
    leaf = weight.clone().requires_grad_()
    found = torch.autograd.grad(rms_norm(x, leaf, eps=0.0, backend="triton").sum(), leaf)[0]
    close(
        found, torch.autograd.grad(rms_norm(x, leaf, eps=0.0, backend="reference").sum(), leaf)[0], 1e-12, ""
    )


@placed
@pytest.mark.triton
def test_weights_may_stay_in_float32_beside_bfloat16_and_rows_have_any_axes() -> None:
    x, weight, _ = case().arguments(3, torch.float32)
    for some in (x.bfloat16(), x[0, 0].bfloat16(), x[:0].bfloat16()):
        leaf = weight.clone().requires_grad_()
        y = rms_norm(some, leaf, backend="triton")
        assert (y.dtype, y.shape) == (torch.bfloat16, some.shape)
        assert torch.autograd.grad(y.sum(), leaf)[0].dtype == torch.float32
        if some.numel():
            close(y, rms_norm(some, weight, backend="reference"), 1e-2, "y")


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
def test_kernels_compile() -> None:
    if not can_compile():
        pytest.skip("Triton is not installed here, or set to interpret kernels")
    built = []
    for d, gated in ((768, False), (1536, True)):
        x, weight, z = inputs(1, 300, d, dtype=torch.float32, gated=gated)
        run = partial(triton_.rms_norm, x.bfloat16().requires_grad_(), weight, eps=1e-5, groups=1)
        gate = None if z is None else z.bfloat16()

        def call(run=run, gate=gate) -> None:
            y = run(z=gate)
            torch.autograd.grad(y, run.args[0], y)

        built += check_compiles(call)
    assert {one.kernel for one in built} == {"forward", "backward"}
    assert max(one.spilled for one in built) == 0
