"""The dense linear scan: its contract in every backend and all forms of A, closed forms, compilation."""

import inspect
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hippodrome.ops.dense_scan import BACKENDS, bytes_moved, dense_scan, flops
from hippodrome.ops.dense_scan.examples import inputs
from hippodrome.ops.linear_scan import linear_scan
from hippodrome.testing.ops import CHECKS, check_op, close, names

NAMES = names(BACKENDS)
FORMS = ("constant", "shared", "own")


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("r", [None, 3], ids=["one", "three"])
@pytest.mark.parametrize("form", ["constant", "own"])
@pytest.mark.parametrize("backend", NAMES)
def test_contract(backend, form, r, check):
    along_time = ("v",) if form == "constant" else ("A", "v")
    examples = partial(inputs, form=form, r=r, n=3)
    check_op(dense_scan, [backend], examples, along_time=along_time, checks=[check])


@pytest.mark.parametrize("backend", NAMES)
@settings(max_examples=20, deadline=None)
@given(
    b=st.integers(1, 3),
    t=st.integers(1, 20),
    n=st.integers(1, 5),
    r=st.sampled_from([None, 1, 2]),
    form=st.sampled_from(FORMS),
    state=st.booleans(),
    resets=st.booleans(),
)
def test_any_shape_agrees_with_the_definition(backend, b, t, n, r, form, state, resets):
    arguments = inputs(b, t, n, r, form=form, with_state=state, with_resets=resets)
    expected = dense_scan(*arguments, backend="reference")
    for actual, value in zip(dense_scan(*arguments, backend=backend), expected, strict=True):
        close(actual, value, 1e-9, backend)


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("r", [None, 2])
def test_the_forms_are_one_repeated(backend, r):
    """Constant is shared with the same matrix at each step, and shared is own with the same in each row."""
    _, v, state, resets = (z.requires_grad_(z.is_floating_point()) for z in inputs(r=r))
    for form in ("constant", "shared"):
        A = inputs(form=form, r=r)[0].requires_grad_()
        results = []
        for same in (A, A.expand(*v.shape[:2], 4, 4)):
            h, last = dense_scan(same, v, state, resets, backend=backend)
            wanted = torch.autograd.grad((h * h).sum() + last.sum(), [A, v, state])
            results.append((h, last, *wanted))
        for actual, expected in zip(*results, strict=True):
            close(actual, expected, 1e-9, f"{backend}, {form}")


@pytest.mark.parametrize("backend", NAMES)
def test_a_diagonal_matrix_is_the_scan_of_its_diagonal(backend):
    _, v, state, resets = inputs(n=5)
    a = torch.rand(2, 37, 5, dtype=torch.float64)
    expected = linear_scan(a, v, state, resets, backend="reference")
    for actual, value in zip(
        dense_scan(torch.diag_embed(a), v, state, resets, backend=backend), expected, strict=True
    ):
        close(actual, value, 1e-12, backend)


@pytest.mark.parametrize("backend", NAMES)
def test_a_nilpotent_matrix_is_a_line_of_delays(backend):
    """A shift by one place holds the last n inputs, the newest first, to the bit."""
    n, t = 4, 11
    shift = torch.diag(torch.ones(n - 1, dtype=torch.float64), -1)
    u = torch.randn(1, t, dtype=torch.float64)
    v = torch.zeros(1, t, n, dtype=torch.float64)
    v[..., 0] = u
    h, _ = dense_scan(shift, v, backend=backend)
    padded = torch.cat([torch.zeros(1, n - 1, dtype=torch.float64), u], 1)
    assert torch.equal(h, padded.unfold(1, n, 1).flip(-1))


def test_a_reset_stops_what_is_not_finite():
    A, v, _, _ = inputs(form="constant", with_state=False, with_resets=False)
    resets = torch.zeros(2, 37, dtype=torch.bool)
    resets[:, 20] = True
    clean = dense_scan(A, v, None, resets)[0]
    v[:, 10] = float("inf")
    broken = dense_scan(A, v, None, resets)[0]
    assert not broken[:, 10:20].isfinite().all()
    assert torch.equal(broken[:, 20:], clean[:, 20:])


def test_wrong_arguments_are_refused_with_a_sentence():
    A, v, state, resets = inputs()
    unchecked = inspect.unwrap(dense_scan)  # without the shape checks of the test run
    with pytest.raises(ValueError, match="A must have the axes"):
        unchecked(A[:, 1:], v)
    with pytest.raises(ValueError, match="A must have the axes"):
        unchecked(A[0, 0, 0], v)
    with pytest.raises(ValueError, match="initial_state must have the axes"):
        unchecked(A, v, state[:, :-1], resets)
    with pytest.raises(ValueError, match="initial_state must have the axes"):
        unchecked(A, v[:, :, None], state, resets)
    with pytest.raises(ValueError, match="resets must be a bool tensor"):
        unchecked(A, v, state, resets.int())
    with pytest.raises(ValueError, match="there is no backend"):
        unchecked(A, v, backend="abacus")


def test_costs():
    assert flops(2, 3, 5) == 300
    assert flops(2, 3, 5, r=2) == 600
    assert bytes_moved(2, 10, 5) == 4 * (20 * 25 + 22 * 10)
    assert bytes_moved(2, 10, 5, constant=True) == 4 * (25 + 22 * 10)
    assert bytes_moved(2, 10, 5, r=3, shared=True) == 4 * (10 * 25 + 22 * 30)


@pytest.mark.compiled
@pytest.mark.parametrize("form", FORMS)
def test_compiles_without_a_break(form):
    arguments = [
        z.requires_grad_() if z.is_floating_point() else z
        for z in inputs(t=12, form=form, dtype=torch.float32)
    ]

    def run(*z):
        h, last = dense_scan(*z, backend="torch")
        return torch.tanh(h).sum() + (last * last).sum()

    wanted = [z for z in arguments if z.is_floating_point()]
    expected = torch.autograd.grad(run(*arguments), wanted)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for actual, value in zip(torch.autograd.grad(compiled(*arguments), wanted), expected, strict=True):
        close(actual, value, 1e-5, form)
