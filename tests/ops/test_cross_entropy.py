"""The cross-entropy of rows: every backend against the definition in every dtype, gradients, refusals."""

import inspect

import pytest
import torch
from torch.nn import functional

from hippodrome.ops.cross_entropy import BACKENDS, bytes_moved, cross_entropy, flops
from hippodrome.ops.cross_entropy.examples import inputs
from hippodrome.testing.ops import close

NAMES = [backend.NAME for backend in BACKENDS if backend.NAME != "triton"]
FAST = [name for name in NAMES if name != "reference"]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-3}


def both(
    backend: str, logits: torch.Tensor, targets: torch.Tensor, rate: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and gradient, the logits left alone; and the same where they are overwritten."""
    before, held = logits.clone(), logits.clone()
    losses, grad = cross_entropy(logits, targets, rate, backend=backend)
    again, over = cross_entropy(held, targets, rate, overwrite=True, backend=backend)
    assert torch.equal(logits.nan_to_num(7.0), before.nan_to_num(7.0))
    assert over is held
    for one, other in ((losses, again), (grad, held)):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))
    return losses, grad


@pytest.mark.parametrize("vocab", [1, 2, 16, 50, 64, 131, 1000])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", FAST)
def test_equals_the_definition(backend, dtype, vocab):
    arguments = inputs(vocab=vocab, dtype=dtype)
    losses, grad = both(backend, *arguments)
    exact, exact_grad = both("reference", *(x.double() if x.is_floating_point() else x for x in arguments))
    assert losses.dtype == torch.promote_types(dtype, torch.float32)
    assert grad.dtype == dtype
    # The losses of bfloat16 logits are those of the numbers they hold, in float32.
    close(losses, exact, max(1e-12, min(TOLERANCE[dtype], 1e-5)), f"{backend}: losses of {dtype}")
    close(grad, exact_grad, TOLERANCE[dtype], f"{backend}: gradient of {dtype}")


@pytest.mark.parametrize("backend", NAMES)
def test_is_the_loss_and_the_gradient_that_autograd_finds(backend):
    logits, targets, _ = inputs()
    leaf = logits.clone().requires_grad_()
    mean = functional.cross_entropy(leaf, targets)
    rate = 1 / (targets != -100).sum()
    losses, grad = both(backend, logits, targets, rate)
    torch.testing.assert_close((losses * rate).sum(), mean.detach(), rtol=1e-6, atol=0)
    close(grad, torch.autograd.grad(mean, leaf)[0], 1e-6, f"{backend}: gradient")


@pytest.mark.parametrize("backend", NAMES)
def test_large_logits_neither_overflow_nor_lose_digits(backend):
    logits = torch.tensor([[1e4, 1e4 - 1, -1e4] + [0.0] * 30], dtype=torch.float32)
    losses, grad = both(backend, logits, torch.tensor([1]), torch.tensor(1.0))
    p = torch.tensor([1 / (1 + torch.e**-1), 1 / (1 + torch.e)])
    close(losses, -p[1:].log(), 1e-6, f"{backend}: loss")
    close(grad[0, :2], p - torch.tensor([0.0, 1.0]), 1e-6, f"{backend}: gradient")
    assert float(grad[0, 2:].abs().max()) < 1e-30


@pytest.mark.parametrize("place", [0, 17, 64, 65])
@pytest.mark.parametrize("backend", NAMES)
def test_a_nan_shows_in_the_loss_and_in_the_gradient(backend, place):
    logits, targets, rate = inputs(vocab=66, dtype=torch.float32)
    logits[3, place] = torch.nan
    targets[3] = 5
    losses, grad = both(backend, logits, targets, rate)
    assert losses.isnan().nonzero().tolist() == [[3]]
    assert bool(grad[3].isnan().all())
    assert bool(grad[4].isfinite().all())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("backend", NAMES)
def test_without_a_rate_the_logits_stay(backend, dtype):
    logits, targets, _ = inputs(dtype=dtype)
    held = logits.clone()
    losses, grad = cross_entropy(held, targets, overwrite=True, backend=backend)
    assert grad is None
    assert torch.equal(held, logits)
    assert float(losses[1::5].abs().max()) == 0


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_same_bits_whatever_the_number_of_threads(dtype):
    arguments, before, seen = inputs(vocab=300, dtype=dtype), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            seen.append(both("numba", *arguments))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("backend", NAMES)
def test_no_rows_are_no_losses(backend):
    empty = torch.empty(0, 7)
    losses, grad = cross_entropy(empty, torch.empty(0, dtype=torch.int64), torch.tensor(1.0), backend=backend)
    assert losses.shape == (0,)
    assert grad.shape == (0, 7)


def test_registration():
    logits, targets, rate = inputs(dtype=torch.float32)
    torch.library.opcheck(torch.ops.hippodrome.cross_entropy_.default, (logits, targets, rate, True))


def test_wrong_arguments_are_refused_with_a_sentence():
    logits, targets, rate = inputs()
    unchecked = inspect.unwrap(cross_entropy)  # as users call it: without the shape checks of the test run
    with pytest.raises(ValueError, match="targets must be int64 of shape"):
        unchecked(logits, targets[1:], rate)
    with pytest.raises(ValueError, match="logits must be dense"):
        unchecked(logits[:, ::2], targets, rate, overwrite=True)
    with pytest.raises(ValueError, match=r"below the vocabulary of 50, or -100; got 50\."):
        unchecked(logits, torch.full_like(targets, 50), rate)
    with pytest.raises(ValueError, match="cannot write float16"):
        unchecked(logits.half(), targets, rate.half(), backend="numba")


def test_float16_goes_to_what_can_write_it():
    logits, targets, rate = inputs(dtype=torch.float16)
    exact, _ = cross_entropy(logits.double(), targets, rate.double(), backend="reference")
    close(cross_entropy(logits, targets, rate)[0], exact, 1e-5, "float16")


@pytest.mark.parametrize("backend", NAMES)
def test_logits_of_any_strides(backend):
    logits, targets, rate = inputs(rows=20)
    for strided in (logits.T.contiguous().T, torch.cat([logits, logits], 1)[:, : logits.shape[1]]):
        for one, other in zip(
            cross_entropy(strided, targets, rate, backend=backend),
            both(backend, logits, targets, rate),
            strict=True,
        ):
            assert torch.equal(one, other)


def test_costs():
    assert flops(3, 5) == 105
    assert bytes_moved(3, 5, 2) == 3 * 30
