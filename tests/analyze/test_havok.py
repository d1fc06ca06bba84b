"""DMD and HAVOK: linear systems found exactly, waves out of delays, Lorenz's matrix to the digits."""

import numpy as np
import pytest

from hippodrome.analyze.havok import delayed, dmd, havok


def lorenz_by_hand(steps: int) -> np.ndarray:
    """x of Lorenz's system every 0.001 from (-8, 8, 27), by the textbook's Runge-Kutta on plain numbers."""
    h, s, found = 0.001, (-8.0, 8.0, 27.0), [-8.0]

    def f(x: float, y: float, z: float) -> tuple[float, float, float]:
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    for _ in range(steps):
        a = f(*s)
        b = f(*(x + h / 2 * k for x, k in zip(s, a, strict=True)))
        c = f(*(x + h / 2 * k for x, k in zip(s, b, strict=True)))
        d = f(*(x + h * k for x, k in zip(s, c, strict=True)))
        moves = zip(s, a, b, c, d, strict=True)
        s = tuple(x + h / 6 * (k + 2 * m + 2 * n + o) for x, k, m, n, o in moves)
        found.append(s[0])
    return np.array(found)


def test_havok_of_lorenz_is_nearly_skew_in_multiples_of_five() -> None:
    found = havok(lorenz_by_hand(49_999), 0.001, delays=100, rank=15)
    A = found.A
    # After 40 Lyapunov times the order of additions decides where the trajectory is, which moves these
    # numbers by some hundredths of themselves: the digits are those of this very integrator.
    np.testing.assert_allclose([A[0, 1], A[1, 0], A[1, 2], A[2, 1]], [-4.97, 4.93, -10.06, 9.92], atol=0.01)
    assert A.shape == (14, 14)
    assert found.B.shape == (14, 1)
    assert int(np.abs(found.B).argmax()) == 13
    assert (np.diag(A, 1) < 0).all()
    assert found.r2.min() > 0.99


def test_coordinates_of_havok_are_the_windows_own() -> None:
    t = np.arange(600) * 0.05
    series = np.cos(t) + 0.5 * np.sin(2.3 * t)
    found = havok(series, 0.05, delays=20, rank=4)
    windows = np.lib.stride_tricks.sliding_window_view(series, 20)
    np.testing.assert_allclose(found.v * found.singular @ found.modes.T, windows, atol=1e-9)
    np.testing.assert_allclose(found.v.T @ found.v, np.eye(4), atol=1e-9)
    assert found.energy == pytest.approx(1.0)
    assert found.modes[:, 0].sum() > 0
    mirrored = havok(-series, 0.05, delays=20, rank=4)
    np.testing.assert_allclose(mirrored.modes, found.modes, atol=1e-7)
    np.testing.assert_allclose(mirrored.A, found.A, atol=1e-7)
    whole = np.concatenate([found.A, found.B], 1)
    rates = np.gradient(found.v, 0.05, axis=0)[5:-5, :-1]
    np.testing.assert_allclose(found.v[5:-5] @ whole.T, rates, atol=5e-4)
    with pytest.raises(ValueError, match="hold 4 coordinates that are not zero, fewer than the rank 6"):
        havok(series, 0.05, delays=20, rank=6)


def test_dmd_finds_a_linear_system_from_several_trajectories() -> None:
    numbers = np.random.default_rng(0)
    A = np.array([[0.9, 0.2, 0.0], [-0.2, 0.9, 0.1], [0.0, 0.0, 0.5]])
    x = numbers.standard_normal((4, 3))
    path = np.stack([x @ np.linalg.matrix_power(A, k).T for k in range(12)], 1)
    found = dmd(path)
    np.testing.assert_allclose(found.A, A, atol=1e-10)
    np.testing.assert_allclose(sorted(np.abs(found.eigenvalues)), [0.5, 0.85**0.5, 0.85**0.5], atol=1e-10)
    residual = A @ found.modes - found.modes * found.eigenvalues
    np.testing.assert_allclose(residual, 0, atol=1e-10)
    np.testing.assert_allclose(found.roll_out(path[:, :5], 7), path[:, 5:], atol=1e-9)
    assert np.linalg.matrix_rank(dmd(path, rank=2).A, tol=1e-8) == 2
    ragged = [path[0, :3], path[1], path[2, 4:]]
    np.testing.assert_allclose(dmd(ragged).A, A, atol=1e-10)


def test_dmd_of_delays_goes_on_with_waves_that_no_state_holds() -> None:
    t = np.arange(80.0)[:, None]
    series = np.cos(0.3 * t) + 0.4 * np.sin(0.71 * t)
    found = dmd(series[:50], delays=6)
    np.testing.assert_allclose(found.roll_out(series[:50], 30), series[50:], atol=1e-6)
    angles = np.sort(np.abs(np.angle(found.eigenvalues)))
    np.testing.assert_allclose(angles, [0.3, 0.3, 0.71, 0.71], atol=1e-7)
    alone = dmd(series[:50]).roll_out(series[:50], 30)
    assert np.abs(alone - series[50:]).max() > 0.5
    with pytest.raises(ValueError, match="goes on from 6 states of 1 numbers"):
        found.roll_out(series[:5], 1)


def test_windows_of_delays_are_newest_first_and_end_at_borders() -> None:
    path = np.arange(12.0).reshape(2, 3, 2)
    assert delayed(path, 2).tolist() == [[[2, 3, 0, 1], [4, 5, 2, 3]], [[8, 9, 6, 7], [10, 11, 8, 9]]]
    with pytest.raises(ValueError, match="inside the trajectory of 3; got 4"):
        delayed(path, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dmd(np.ones((3, 1)), delays=3), "takes 4 states of a trajectory; got 3"),
        (lambda: dmd(np.eye(5), rank=9), "from 1 to 4, the singular values there are; got 9"),
        (lambda: dmd(np.full((9, 1), np.inf)), "got NaN or infinity"),
        (lambda: dmd(np.ones(9)), r"got shape \(9,\)"),
        (lambda: havok(np.ones(30), 0.1, delays=29, rank=4), "29 delays and rank 4"),
        (lambda: havok(np.ones((30, 2)), 0.1, delays=9, rank=4), r"shape \(30, 2\)"),
    ],
)
def test_what_has_no_linear_law(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
