"""SINDy: the laws of known systems to the digits, words for them, borders of trajectories, refusals."""

import numpy as np
import pytest

from hippodrome.analyze.sindy import derivatives, identify, library, powers
from hippodrome.data.dynamics import integrate, lorenz, lotka_volterra


def test_exact_derivatives_of_lorenz_give_its_equations_and_zeros() -> None:
    states = integrate(lorenz, np.array([-8.0, 8.0, 27.0]), 0.01, 500)
    law = identify(states, lorenz(states))
    named = {tuple(power): column for power, column in zip(law.powers, law.coefficients.T, strict=True)}
    wanted = {
        (1, 0, 0): [-10.0, 28.0, 0.0],
        (0, 1, 0): [10.0, -1.0, 0.0],
        (0, 0, 1): [0.0, 0.0, -8 / 3],
        (1, 0, 1): [0.0, -1.0, 0.0],
        (1, 1, 0): [0.0, 0.0, 1.0],
    }
    assert len(named) == 10
    for power, column in named.items():
        np.testing.assert_allclose(column, wanted.get(power, [0.0, 0.0, 0.0]), atol=1e-9)
    np.testing.assert_allclose(law.r2, 1.0, atol=1e-12)
    np.testing.assert_allclose(law.rates(states), lorenz(states), atol=1e-7)
    assert law.equations("xyz") == [
        "dx/dt = -10 x + 10 y",
        "dy/dt = 28 x - y - x z",
        "dz/dt = -2.667 z + x y",
    ]


def test_derivatives_are_of_fourth_order_and_stay_inside_a_trajectory() -> None:
    def worst(dt: float) -> float:
        t = np.arange(0, 2, dt)[:, None]
        return float(np.abs(derivatives(np.sin(t), dt) - np.cos(t)[2:-2]).max())

    assert 14 < worst(0.1) / worst(0.05) < 18
    start = np.array([[1.0, 2.0], [2.5, 1.0], [1.5, 1.5]])
    path = integrate(lotka_volterra(0.5, 0.75, 0.75, 0.5), start, 0.1, 60)
    rates = derivatives(path, 0.1)
    assert rates.shape == (3, 57, 2)
    law = identify(path[:, 2:-2].reshape(-1, 2), rates.reshape(-1, 2), threshold=0.05)
    assert law.equations(["prey", "hunters"], digits=3) == [
        "dprey/dt = 0.5 prey - 0.75 prey hunters",
        "dhunters/dt = -0.5 hunters + 0.75 prey hunters",
    ]


def test_small_coefficients_go_and_the_rest_is_fitted_again() -> None:
    x = np.random.default_rng(0).standard_normal((400, 1))
    rate = 2 * x + 0.05 * x**2
    law = identify(x, rate, degree=2, threshold=0.2)
    alone = float((x * rate).sum() / (x * x).sum())
    np.testing.assert_allclose(law.coefficients, [[0.0, alone, 0.0]], rtol=1e-12)
    nothing = identify(x, 0.01 * x, threshold=0.2)
    assert nothing.equations("x") == ["dx/dt = 0"]
    assert identify(x, x**0 * 3.0, degree=0).equations("x") == ["dx/dt = 3"]


def test_the_library_holds_each_product_once() -> None:
    exponents = powers(2, 3)
    assert exponents.tolist() == [
        *([0, 0], [1, 0], [0, 1], [2, 0], [1, 1], [0, 2]),
        *([3, 0], [2, 1], [1, 2], [0, 3]),
    ]
    np.testing.assert_allclose(library(np.array([2.0, 3.0]), exponents)[-3], 12.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rates": np.ones((19, 2))}, r"shapes \(20, 2\) and \(19, 2\)"),
        ({"states": np.full((20, 2), np.nan)}, "got NaN or infinity"),
        ({"degree": -1}, "got -1 and 0.1"),
        ({"degree": 6}, "28 terms of degree 6 take as many states at least; got 20"),
    ],
)
def test_what_cannot_be_fitted(change: dict, words: str) -> None:
    given = {"states": np.ones((20, 2)), "rates": np.ones((20, 2)), **change}
    with pytest.raises(ValueError, match=words):
        identify(**given)
    with pytest.raises(ValueError, match="taken over five states; got a trajectory of 4"):
        derivatives(np.ones((4, 2)), 0.1)
