"""Gated linear attention in Triton: the contract where kernels run, strong decays, builds for three GPUs."""

from functools import partial

import pytest
import torch

from hippodrome.ops.gla import BACKENDS, gla, triton_
from hippodrome.ops.gla.examples import inputs
from hippodrome.testing import triton_ as testing
from hippodrome.testing.ops import check_double_backward

ALONG_TIME = ("q", "k", "v", "log_decay")
WHERE = testing.device()
runs = pytest.mark.skipif(WHERE is None, reason="Triton has no GPU here, nor is it set to interpret kernels")


def test_it_is_asked_first() -> None:
    assert BACKENDS[0] is triton_


@runs
@pytest.mark.triton
def test_contract() -> None:
    more = (check_double_backward,)
    testing.check_triton(gla, partial(inputs, b=1, h=1), along_time=ALONG_TIME, lengths=(18,), more=more)


@runs
@pytest.mark.triton
def test_sizes_beyond_one_tile() -> None:
    testing.check_values(gla, partial(inputs, b=1, h=2, k=35, v=70), lengths=(20,))


@runs
@pytest.mark.triton
@pytest.mark.parametrize("decay", [-10.0, -90.0])
def test_strong_decays_stay_finite_and_exact(decay: float) -> None:
    q, k, v, log_decay, state, resets = inputs(b=1, t=37, h=1, dtype=torch.float32)
    # Channels forget at very different rates, and weak decays follow on strong ones.
    log_decay = log_decay * 0.01
    log_decay[:, ::3] += torch.linspace(0, decay, 4)
    found = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        leaves = [x.detach().to(WHERE, dtype).requires_grad_() for x in (q, k, v, log_decay, state)]
        y, last = gla(*leaves, resets.to(WHERE), backend=backend)
        found.append((y, last, *torch.autograd.grad(y.square().sum() + last.sum(), leaves)))
    for actual, expected in zip(*found, strict=True):
        assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.cubin
@pytest.mark.skipif(not testing.can_compile(), reason="Triton is not installed, or set to interpret kernels")
@pytest.mark.parametrize(
    ("sizes", "dtype", "capabilities"),
    [
        ((1, 64, 4, 64, 128), torch.float32, (80, 90, 100)),
        ((1, 64, 4, 64, 128), torch.bfloat16, (90,)),
        ((1, 20, 2, 5, 3), torch.float64, (80,)),
    ],
    ids=["float32", "bfloat16", "float64"],
)
def test_compiles_for_every_architecture(sizes, dtype, capabilities) -> None:
    def call() -> None:
        q, k, v, log_decay, state, resets = inputs(*sizes, dtype=torch.float32)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        leaves += [x.to(wide).requires_grad_() for x in (log_decay, state)]
        y, last = triton_.gla(*leaves, resets)
        (y.sum() + last.sum()).backward()

    built = testing.check_compiles(call, capabilities)
    assert {cubin.kernel for cubin in built} == {"states", "outputs", "grad_keys"}
    if dtype != torch.float64:
        assert all(cubin.spilled <= 16 for cubin in built), [(c.kernel, c.spilled) for c in built]
