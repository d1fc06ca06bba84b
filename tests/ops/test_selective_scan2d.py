"""The selective scan over a grid: its contract, and the scans that it is where states do not meet."""

from functools import partial

import pytest
import torch

from hippodrome.ops.selective_scan import selective_scan
from hippodrome.ops.selective_scan2d import BACKENDS, bytes_moved, flops, selective_scan2d
from hippodrome.ops.selective_scan2d.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op, check_registration, check_threads, close, names

# The torch form sums the gradients of what all cells share in parts, one a thread, and the custom ops inside
# it are those of the linear scan, which hold to their own contract.
APPLY = {
    "numba": CHECKS,
    "torch": [c for c in CHECKS if c not in (check_threads, check_registration)],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_contract(backend, check):
    if check in APPLY[backend]:
        small = partial(inputs, v=2, d=3, n=2)
        check_op(selective_scan2d, [backend], small, along_time=("x", "dt", "B", "C"), checks=[check])


@pytest.mark.parametrize("backend", names(BACKENDS))
@pytest.mark.parametrize("d", [16, 37])
def test_wide_grids_fill_their_tiles(backend, d):
    arguments = inputs(b=3, t=5, v=4, d=d, n=4)
    y, last = selective_scan2d(*arguments, backend=backend)
    expected, state = selective_scan2d(*arguments, backend="reference")
    close(y, expected, 1e-12, "outputs")
    close(last, state, 1e-12, "states")


def test_states_that_do_not_meet_are_scans_along_time_and_along_the_variates():
    x, dt, A, K, B, C, *_ = inputs(b=2, t=6, v=3, d=4, n=3)
    y, _ = selective_scan2d(x, dt, A, torch.zeros_like(K), B, C)
    told = torch.zeros_like(y)
    for axis, k in ((1, 0), (2, 1)):
        rows = [z.movedim(axis, -2).flatten(0, 1) for z in (x, dt[..., k, :], B[..., k, :], C[..., k, :])]
        size, rate = rows[1], A[k]
        # By zero-order hold, one number of the state after the other: each has its own gain.
        for m in range(3):
            gain = torch.expm1(size * rate[:, m]) / rate[:, m] / size
            part, _ = selective_scan(
                rows[0] * gain, size, rate[:, m : m + 1], rows[2][..., m : m + 1], rows[3][..., m : m + 1]
            )
            other = 2 if axis == 1 else 1
            told += part.unflatten(0, (2, x.shape[other])).movedim(-2, axis)
    close(y, told, 1e-12, "two scans")


def test_small_steps_keep_their_digits_in_float32():
    x, dt, A, K, B, C, *_ = inputs(t=3, d=16, n=4)
    arguments = [z.float() for z in (x, dt * 1e-4, A, K, B, C)]
    y, _ = selective_scan2d(*arguments, backend="numba")
    expected, _ = selective_scan2d(*(z.double() for z in arguments), backend="reference")
    close(y, expected, 2e-6, "steps of 1e-5")


def test_what_it_costs_is_counted():
    assert flops(1, 2, 3, 4, 5) == 24 * 120
    assert bytes_moved(1, 1, 1, 1, 1) == 4 * (8 + 4 + 4)


def test_a_wrong_shape_stops_at_the_door():
    x, dt, A, K, B, C, *_ = inputs()
    with pytest.raises(ValueError, match="dt must have the axes"):
        selective_scan2d.__wrapped__(x, dt[:, :, :, 0], A, K, B, C)


@pytest.mark.parametrize("backend", names(BACKENDS))
@pytest.mark.parametrize("wide", range(7))
def test_one_argument_in_float64_makes_all_states_so(backend, wide):
    arguments = [z.float() for z in inputs(b=1, t=2, v=2, d=2, n=2)[:7]]
    arguments[wide] = arguments[wide].double()
    y, last = selective_scan2d(*arguments, backend=backend)
    assert y.dtype == arguments[0].dtype
    assert last.dtype == torch.float64


def test_no_time_is_refused_where_the_states_would_be_left_unwritten():
    with pytest.raises(ValueError, match="one time or more"):
        selective_scan2d(*inputs(t=0))
