"""The delta rule in Triton: the contract where kernels run, strong gates, builds for three GPUs."""

from functools import partial

import pytest
import torch

from hippodrome.ops.delta_rule import BACKENDS, delta_rule, triton_
from hippodrome.ops.delta_rule.examples import inputs
from hippodrome.testing import triton_ as testing
from hippodrome.testing.ops import check_double_backward

ALONG_TIME = ("q", "k", "v", "beta", "log_decay")
WHERE = testing.device()
runs = pytest.mark.skipif(WHERE is None, reason="Triton has no GPU here, nor is it set to interpret kernels")


def test_it_is_asked_first() -> None:
    assert BACKENDS[0] is triton_


@runs
@pytest.mark.triton
def test_contract() -> None:
    more = (check_double_backward,)
    testing.check_triton(
        delta_rule, partial(inputs, b=1, h=1), along_time=ALONG_TIME, lengths=(18,), more=more
    )


@runs
@pytest.mark.triton
def test_sizes_beyond_one_tile() -> None:
    testing.check_values(delta_rule, partial(inputs, b=1, h=2, k=35, v=70), lengths=(20,))


@runs
@pytest.mark.triton
def test_long_keys_are_refused_with_a_sentence() -> None:
    long = [x.to(WHERE) for x in inputs(b=1, t=2, h=1, k=130, dtype=torch.float32)]
    assert "at most 128 channels in this dtype; got 130" in str(triton_.refusal(*long))
    assert triton_.refusal(*(x.bfloat16() if x.is_floating_point() else x for x in long)) is None


@runs
@pytest.mark.triton
@pytest.mark.parametrize("decay", [-10.0, -90.0])
def test_strong_gates_stay_finite_and_exact(decay: float) -> None:
    q, k, v, beta, log_decay, state, resets = inputs(b=1, t=37, h=1, dtype=torch.float32)
    # Weak gates follow on strong ones.
    log_decay = log_decay * 0.01
    log_decay[:, ::3] += decay
    found = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        leaves = [x.detach().to(WHERE, dtype).requires_grad_() for x in (q, k, v, beta, log_decay, state)]
        y, last = delta_rule(*leaves, resets.to(WHERE), backend=backend)
        found.append((y, last, *torch.autograd.grad(y.square().sum() + last.sum(), leaves)))
    for actual, expected in zip(*found, strict=True):
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.cubin
@pytest.mark.skipif(not testing.can_compile(), reason="Triton is not installed, or set to interpret kernels")
@pytest.mark.parametrize(
    ("sizes", "dtype", "capabilities"),
    [
        ((1, 64, 4, 64, 64), torch.float32, (80, 90, 100)),
        ((1, 64, 4, 64, 64), torch.bfloat16, (90,)),
        ((1, 20, 2, 5, 3), torch.float64, (80,)),
    ],
    ids=["float32", "bfloat16", "float64"],
)
def test_compiles_for_every_architecture(sizes, dtype, capabilities) -> None:
    def call() -> None:
        q, k, v, beta, log_decay, state, resets = inputs(*sizes, dtype=torch.float32)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        leaves += [x.to(wide).requires_grad_() for x in (beta, log_decay, state)]
        y, last = triton_.delta_rule(*leaves, resets)
        (y.sum() + last.sum()).backward()

    built = testing.check_compiles(call, capabilities)
    assert {cubin.kernel for cubin in built} == {"invert", "states", "outputs", "states_back", "gradients"}
    # Float32 takes its operands in three parts, which do not all fit in registers.
    most = {torch.bfloat16: 16, torch.float32: 512, torch.float64: 4096}[dtype]
    assert all(cubin.spilled <= most for cubin in built), [(c.kernel, c.spilled) for c in built]
