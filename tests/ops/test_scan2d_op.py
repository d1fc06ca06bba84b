"""The scan over a grid: its contract, the fixture, its parallel forms, and the linear scans inside it."""

import inspect
from functools import partial

import pytest
import torch
from torch import Tensor

from hippodrome.ops.fft_conv_nd import fft_conv_nd
from hippodrome.ops.linear_scan import linear_scan
from hippodrome.ops.scan2d import BACKENDS, bytes_moved, flops, scan2d
from hippodrome.ops.scan2d.examples import inputs
from hippodrome.ops.scan2d.torch_ import columns, rows, wavefront
from hippodrome.testing.ops import CHECKS, check_op, check_registration, check_threads, close, names

NAMES = names(BACKENDS)
EVERY = [*NAMES, "reference"]
IMPULSE = [[2, 0.75, 0.375, 0.1875], [1, 0.625, 0.40625, 0.25], [0.5, 0.4375, 0.34375, 0.24609375]]
"""h1 + h2 over 3 variates and 4 times after an impulse in the corner, a = (.5, .25, .5, .5)."""
# What is alike in all cells has a gradient that PyTorch sums over them in parts, one a thread. The custom ops
# inside the torch form are those of the linear scan, which hold to their own contract.
APPLY = {
    "numba": CHECKS,
    "torch": [c for c in CHECKS if c not in (check_threads, check_registration)],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_contract(backend, check):
    if check in APPLY[backend]:
        small = partial(inputs, v=2, d=2)
        check_op(scan2d, [backend], small, along_time=("a", "u", "edge"), checks=[check])


@pytest.mark.parametrize("check", APPLY["torch"], ids=lambda c: c.__name__)
def test_contract_where_all_cells_are_alike(check):
    small = partial(inputs, v=2, d=2, constant=True)
    check_op(scan2d, ["numba"], small, along_time=("u", "edge"), checks=[check])


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("constant", [True, False])
def test_an_impulse_spreads_as_computed_by_hand(backend, constant):
    a = torch.tensor([0.5, 0.25, 0.5, 0.5], dtype=torch.float64)[:, None]
    u = torch.zeros(1, 4, 3, 2, 1, dtype=torch.float64)
    u[0, 0, 0] = 1
    h, _ = scan2d(a if constant else a.expand(1, 4, 3, 4, 1), u, backend=backend)
    assert h.sum(3)[0, ..., 0].T.tolist() == IMPULSE


@pytest.mark.parametrize("t", [1, 2, 5, 12])
@pytest.mark.parametrize("v", [1, 2, 7])
def test_all_forms_are_one(t, v):
    a, u, *_ = inputs(t=t, v=v)
    expected, _ = scan2d(a, u, backend="reference")
    for form in (rows, columns, wavefront):
        close(form(a, u), expected, 1e-12, form.__name__)


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize(("t", "v", "d"), [(3, 9, 5), (9, 3, 40), (5, 150, 70), (4, 1, 300)])
def test_any_grid_agrees_with_the_definition(backend, t, v, d):
    arguments = [
        None if x is None else x.requires_grad_(x.is_floating_point()) for x in inputs(t=t, v=v, d=d)
    ]
    found: list[list[Tensor]] = []
    for name in (backend, "reference"):
        h, last = scan2d(*arguments, backend=name)
        loss = (h * h.detach().cos()).sum() + last.square().sum()
        found.append([h, last, *torch.autograd.grad(loss, [x for x in arguments if x.is_floating_point()])])
    for actual, expected in zip(*found, strict=True):
        close(actual, expected, 1e-11, f"{t} times, {v} variates, {d} channels")


@pytest.mark.parametrize("backend", EVERY)
def test_without_coupling_it_is_two_scans(backend):
    a, u, state, edge, resets = inputs(t=9, v=4)
    a[..., 1:3, :] = 0
    h, _ = scan2d(a, u, state, edge, resets, backend=backend)
    for j in range(4):
        line, _ = linear_scan(a[:, :, j, 0], u[:, :, j, 0], state[:, j, 0], resets, backend="reference")
        close(h[:, :, j, 0], line, 1e-12, f"h1 of variate {j}")
    for k in range(9):
        line, _ = linear_scan(a[:, k, :, 3], u[:, k, :, 1], edge[:, k, 1], backend="reference")
        close(h[:, k, :, 1], line, 1e-12, f"h2 at time {k}")


@pytest.mark.parametrize("backend", EVERY)
def test_where_all_cells_are_alike_it_is_a_convolution_over_the_grid(backend):
    a, u, *_ = inputs(b=2, t=8, v=6, constant=True)
    y = scan2d(a, u, backend=backend)[0].sum(3)
    for kind in range(2):
        impulse = torch.zeros(1, 8, 6, 2, 5, dtype=torch.float64)
        impulse[0, 0, 0, kind] = 1
        kernel = scan2d(a, impulse, backend=backend)[0].sum(3)[0].movedim(-1, 0)
        y = y - fft_conv_nd(u[:, :, :, kind], kernel)
    assert y.abs().max() < 1e-12 * u.abs().max() * 100


@pytest.mark.parametrize("backend", EVERY)
def test_pieces_join_along_the_variates_too(backend):
    a, u, state, edge, resets = inputs(t=6, v=5)
    whole, _ = scan2d(a, u, state, edge, resets, backend=backend)
    upper, _ = scan2d(a[:, :, :2], u[:, :, :2], state[:, :2], edge, resets, backend=backend)
    lower, _ = scan2d(a[:, :, 2:], u[:, :, 2:], state[:, 2:], upper[:, :, -1], resets, backend=backend)
    close(torch.cat([upper, lower], 2), whole, 1e-12, "two pieces")


def test_below_the_bound_it_dies_out_and_above_it_grows():
    """a2 a3 against (1 - a1)(1 - a4) = 1/4, on the diagonal, where all paths meet."""
    u = torch.zeros(1, 200, 200, 2, 1, dtype=torch.float64)
    u[0, 0, 0] = 1
    far = []
    for coupling in (0.45, 0.55):
        a = torch.tensor([0.5, coupling, coupling, 0.5], dtype=torch.float64)[:, None]
        h = scan2d(a, u)[0][0, :, :, 0, 0]
        far.append(float(h[199, 199] / h[99, 99]))
    assert far[0] < 0.01
    assert far[1] > 100


def test_wrong_arguments_are_refused_with_a_sentence():
    a, u, state, edge, resets = inputs()
    unchecked = inspect.unwrap(scan2d)  # without the shape checks of the test run
    with pytest.raises(ValueError, match="a must have the axes"):
        unchecked(a[:, :, :, :3], u)
    with pytest.raises(ValueError, match="initial_state must have the axes"):
        unchecked(a, u, state[:, :1])
    with pytest.raises(ValueError, match="edge must have the axes"):
        unchecked(a, u, state, edge[:, 1:])
    with pytest.raises(ValueError, match="resets must be a bool tensor"):
        unchecked(a, u, state, edge, resets.double())


def test_costs():
    assert flops(1, 2, 3, 4) == 8 * 24
    assert bytes_moved(1, 2, 3, 4) == 4 * (8 * 24 + 4 * 12)
    assert bytes_moved(1, 2, 3, 4, constant=True) == 4 * (4 * 4 + 4 * 24 + 4 * 12)


@pytest.mark.compiled
def test_compiles_whole():
    arguments = inputs(t=4, dtype=torch.float32)
    compiled = torch.compile(lambda *z: scan2d(*z), backend="aot_eager", fullgraph=True)
    close(compiled(*arguments)[0], scan2d(*arguments)[0], 1e-5, "compiled")
