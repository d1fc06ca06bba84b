"""The diagonal time-invariant system: its contract in every backend, closed forms, digits in float32."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.diagonal_lti import BACKENDS, diagonal_lti
from hippodrome.ops.diagonal_lti.examples import inputs
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.ops.vandermonde import vandermonde
from hippodrome.testing._op_case import leaf
from hippodrome.testing.ops import CHECKS, check_float64, check_op, check_resets, close, names

NAMES = names(BACKENDS)
FAST = [name for name in NAMES if name != "reference"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, check):
    check_op(diagonal_lti, [backend], inputs, along_time=("u",), checks=[check])


@pytest.mark.parametrize("d", [1, 8, 16, 33])
@pytest.mark.parametrize("n", [1, 3, 17])
@pytest.mark.parametrize("backend", FAST)
def test_contract_at_other_sizes(backend, n, d):
    """Odd numbers of modes, part-filled and several tiles of channels, and the longer chunk of many modes."""
    examples = partial(inputs, b=2, n=n, d=d)
    check_op(diagonal_lti, [backend], examples, along_time=("u",), checks=[check_float64, check_resets])


def test_bfloat16_is_rounded_once_on_the_way_out():
    """Against the definition on the same rounded numbers: half a unit in the last place, and float32."""
    u, *rest = inputs(t=150, d=33, dtype=torch.float32)
    u, pull = u.bfloat16(), torch.randn(u.shape, generator=torch.Generator().manual_seed(1)).bfloat16()

    def run(arguments, backend, pull):
        leaves = [leaf(z) for z in arguments]
        outputs = diagonal_lti(*leaves, backend=backend)
        wanted = [z for z in leaves if z.is_floating_point()]
        return [*outputs, *torch.autograd.grad(outputs[0], wanted, pull)], wanted

    actual, wanted = run((u, *rest), "numba", pull)
    wide = tuple(z.double() if z.is_floating_point() else z for z in (u, *rest))
    expected, _ = run(wide, "reference", pull.double())
    for z, value, like in zip(actual, expected, (u, rest[2], *wanted), strict=True):
        assert z.dtype == like.dtype
        room = value.abs() / 256 if z.dtype == torch.bfloat16 else torch.zeros_like(value)
        assert ((z - value).abs() <= room + 1e-5 * value.abs().max()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_bits_whatever_the_threads_and_run_to_run(dtype):
    u, *rest = inputs(b=5, t=3000, d=33, n=5, dtype=torch.float32)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            leaves = [leaf(z) for z in (u.to(dtype), *rest)]
            outputs = diagonal_lti(*leaves, backend="numba")
            wanted = [z for z in leaves if z.is_floating_point()]
            seen.append([*outputs, *torch.autograd.grad(outputs, wanted, [z.detach() for z in outputs])])
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(z, value) for z, value in zip(other, seen[0], strict=True))


@given(t=st.integers(1, 300), marks=st.lists(st.integers(0, 299), max_size=6), n=st.sampled_from([2, 18]))
@settings(max_examples=15, deadline=None)
def test_any_length_with_resets_anywhere(t, marks, n):
    """Chunks with and without resets, runs of whole chunks, and ragged ends, forward and backward."""
    u, log_a, w, state, resets, skip = inputs(t=t, n=n)
    resets = torch.zeros_like(resets)
    for mark in marks:
        resets[mark % 2, mark % t] = True
    results = []
    for backend in ("numba", "torch"):
        leaves = [x.clone().requires_grad_() for x in (u, log_a, w, state, skip)]
        y, last = diagonal_lti(*leaves[:4], resets, leaves[4], backend=backend)
        slopes = torch.autograd.grad(y.cos().sum() + last.sin().sum(), leaves)
        results.append([y, last, *slopes])
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 1e-9, f"t = {t}, resets at {marks}")


@pytest.mark.parametrize("backend", NAMES)
def test_is_the_convolution_with_its_kernel(backend):
    u, log_a, w, _, _, skip = inputs(t=150, d=5)
    y, _ = diagonal_lti(u, log_a, w, None, None, skip, backend=backend)
    expected = fft_conv(u, vandermonde(log_a, w, 150), backend="reference") + skip * u
    close(y, expected, 1e-12, backend)


@pytest.mark.parametrize("backend", NAMES)
def test_conjugate_pairs_with_the_factor_two_are_a_dense_real_system(backend):
    """h = A h + (1, 0) u with A the rotation and decay of each pair, y = 2 Re sum c h."""
    u, log_a, c, *_ = inputs(b=1, t=80, d=1, n=3)
    y, last = diagonal_lti(u, log_a, 2 * c, backend=backend)
    radius, angle = torch.exp(log_a[0, :, 0]), log_a[0, :, 1]
    re, im = radius * angle.cos(), radius * angle.sin()
    blocks = [torch.tensor([[a, -b], [b, a]], dtype=torch.float64) for a, b in zip(re, im, strict=True)]
    A, B = torch.block_diag(*blocks), torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(3)
    C = (2 * c[0] * torch.tensor([1.0, -1.0], dtype=torch.float64)).flatten()
    h, expected = torch.zeros(6, dtype=torch.float64), []
    for t in range(80):
        h = A @ h + B * u[0, t, 0]
        expected.append(C @ h)
    close(y[0, :, 0], torch.stack(expected), 1e-12, backend)
    close(last.flatten(), h, 1e-12, backend)


@pytest.mark.parametrize("backend", FAST)
def test_float32_keeps_phase_and_decay_over_long_times(backend):
    """The answer to an impulse after 8000 steps of a mode that turns fast and hardly fades."""
    log_a = torch.tensor([[[-1e-4, 3.0]]])
    u = torch.zeros(1, 8001, 1)
    u[:, 0] = 1
    y, _ = diagonal_lti(u, log_a, torch.tensor([[[1.0, 0.0]]]), backend=backend)
    decay, angle = log_a[0, 0].double().tolist()
    for t in (63, 64, 1000, 8000):
        assert y[0, t, 0].item() == pytest.approx(math.exp(decay * t) * math.cos(angle * t), abs=3e-5)


@pytest.mark.parametrize("backend", FAST)
def test_gradients_in_float32_over_many_chunks(backend):
    u, log_a, w, state, _, skip = inputs(b=2, t=2000, d=17, n=16, dtype=torch.float32)
    results = []
    for dtype, chosen in ((torch.float32, backend), (torch.float64, "torch")):
        leaves = [x.to(dtype).requires_grad_() for x in (u, log_a, w, state, skip)]
        y, last = diagonal_lti(*leaves[:4], None, leaves[4], backend=chosen)
        results.append([y, last, *torch.autograd.grad(y.square().sum() + last.sum(), leaves)])
    for actual, expected in zip(*results, strict=True):
        close(actual, expected, 2e-5, backend)


def test_what_lies_before_a_reset_is_gone_even_if_it_is_not_a_number():
    u, log_a, w, state, resets, skip = inputs(b=1, t=90)
    resets[:] = False
    resets[:, 40] = True
    u[:, 39], state[:] = math.nan, math.nan
    y, last = diagonal_lti(u, log_a, w, state, resets, skip, backend="numba")
    assert y[:, 40:].isfinite().all()
    assert last.isfinite().all()


def test_states_are_kept_for_the_backward_only_when_there_is_one():
    u, log_a, w, state, *_ = inputs(t=70)
    with torch.no_grad():
        quiet = diagonal_lti(u, log_a, w, state, backend="numba")
    loud = diagonal_lti(u.requires_grad_(), log_a, w, state, backend="numba")
    for a, b in zip(quiet, loud, strict=True):
        assert torch.equal(a, b)


def test_the_number_of_threads_changes_no_bit():
    """Few channels and many rows: the rows of a block of channels are then shared among threads."""
    before, results = torch.get_num_threads(), []
    arguments = inputs(b=5, t=2000, d=20, n=5, dtype=torch.float32)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [x.clone().requires_grad_() for x in (*arguments[:4], arguments[5])]
            y, last = diagonal_lti(*leaves[:4], arguments[4], leaves[4], backend="numba")
            slopes = torch.autograd.grad([y, last], leaves, [y.detach(), last.detach()])
            results.append([y, last, *slopes])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.compiled
@pytest.mark.parametrize("backend", FAST)
def test_compiles_whole(backend):
    arguments = inputs(t=70, dtype=torch.float32)

    def run(u, log_a, w, state, resets, skip):
        return diagonal_lti(u, log_a, w, state, resets, skip, backend=backend)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    for marks in (None, arguments[4]):
        results = []
        for form in (run, compiled):
            u, log_a, w, state, skip = (x.clone().requires_grad_() for x in (*arguments[:4], arguments[5]))
            y, last = form(u, log_a, w, state, marks, skip)
            slopes = torch.autograd.grad(y.square().sum() + last.sum(), [u, log_a, w, state, skip])
            results.append([y, last, *slopes])
        for actual, expected in zip(*results, strict=True):
            close(actual, expected, 1e-5, backend)


@pytest.mark.compiled
def test_the_torch_form_compiles_to_code():
    """Inductor generates no code for complex numbers: real pairs go through it."""
    arguments = inputs(b=1, t=40, d=2, n=2, dtype=torch.float32, with_resets=False)
    compiled = torch.compile(lambda *x: diagonal_lti(*x, backend="torch"), fullgraph=True)
    for actual, expected in zip(
        compiled(*arguments), diagonal_lti(*arguments, backend="reference"), strict=True
    ):
        close(actual, expected, 1e-5, "inductor")
