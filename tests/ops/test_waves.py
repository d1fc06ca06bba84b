"""Cosine and sine inside the Numba kernels, against NumPy's in float64."""

import math

import numpy as np
import pytest
from numba import njit

from hippodrome.ops._lanes_kernel import LANES, load, store
from hippodrome.ops._waves_kernel import wave


@njit
def _waves(x, cosine, sine):
    for i in range(0, x.size, LANES):
        c, s = wave(load(x, i))
        store(cosine, i, c)
        store(sine, i, s)


def waves(x):
    cosine, sine = np.empty_like(x), np.empty_like(x)
    _waves(x, cosine, sine)
    return cosine, sine


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-7), (np.float64, 3e-16)])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e3, 1e4])
def test_cosine_and_sine_to_the_last_places(dtype, tolerance, size):
    x = (np.linspace(-size, size, 2**16) + 0.1 * size / 2**16).astype(dtype)
    cosine, sine = waves(x)
    assert cosine.dtype == dtype
    assert np.abs(cosine - np.cos(x.astype(np.float64))).max() <= tolerance
    assert np.abs(sine - np.sin(x.astype(np.float64))).max() <= tolerance


@pytest.mark.parametrize(
    ("dtype", "relative", "floor"), [(np.float32, 5e-7, 5e-12), (np.float64, 1e-15, 1e-19)]
)
def test_near_their_zeros_they_stay_exact_in_their_own_size(dtype, relative, floor):
    # The floats next to multiples of pi/2, where most of the argument cancels.
    x = (np.arange(-512, 512) * (math.pi / 2)).astype(dtype)
    cosine, sine = waves(x)
    expected = np.sin(x.astype(np.longdouble)), np.cos(x.astype(np.longdouble))
    for found, exact in ((sine, expected[0]), (cosine, expected[1])):
        small = np.abs(exact) < 0.5
        assert np.all(np.abs(found - exact)[small] <= relative * np.abs(exact)[small] + floor)


def test_exact_at_zero_and_never_silent_about_nan():
    x = np.zeros(LANES)
    x[1], x[2], x[3] = np.nan, np.inf, -np.inf
    cosine, sine = waves(x)
    assert cosine[0] == 1
    assert sine[0] == 0
    assert np.isnan(cosine[1:4]).all()
    assert np.isnan(sine[1:4]).all()
    assert (cosine[4:] == 1).all()
