"""Structural similarity: its definition window by window, and what it must be at the ends of its scale."""

import inspect

import numpy as np
import pytest
import torch

from hippodrome.ops.ssim import ssim


def by_windows(x: np.ndarray, y: np.ndarray, taps: int) -> float:
    """Equation 13 of the paper, one window after the other."""
    place = np.arange(taps) - taps // 2
    w = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    w /= w.sum()
    found = []
    for i in range(x.shape[0] - taps + 1):
        for j in range(x.shape[1] - taps + 1):
            a, b = (z[i : i + taps, j : j + taps] for z in (x, y))
            m, n = (w * a).sum(), (w * b).sum()
            s, t, st = (w * (a - m) ** 2).sum(), (w * (b - n) ** 2).sum(), (w * (a - m) * (b - n)).sum()
            found.append((2 * m * n + 1e-4) * (2 * st + 9e-4) / ((m**2 + n**2 + 1e-4) * (s + t + 9e-4)))
    return float(np.mean(found))


@pytest.mark.parametrize(("rows", "columns", "taps"), [(14, 12, 11), (8, 9, 7), (5, 20, 5)])
def test_it_is_the_mean_over_windows(rows: int, columns: int, taps: int) -> None:
    x, y = torch.rand(2, 3, rows, columns, 2, dtype=torch.float64)
    expected = torch.zeros(3, dtype=torch.float64)
    for k in range(3):
        for c in range(2):
            expected[k] += by_windows(x[k, ..., c].numpy(), y[k, ..., c].numpy(), taps) / 2
    torch.testing.assert_close(ssim(x, y), expected, rtol=1e-10, atol=0)


def test_float32_loses_nothing_where_a_picture_is_bright_and_flat() -> None:
    x, y = 200 + torch.rand(2, 1, 16, 16, 1)
    found = ssim(x, y, 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), ssim(x.double(), y.double(), 0.1), rtol=1e-6, atol=0)


def test_it_is_one_for_the_same_and_below_for_another() -> None:
    x = torch.rand(2, 4, 16, 16, 1)
    assert ssim(x, x) == pytest.approx(torch.ones(2, 4), abs=1e-5)
    assert (ssim(x, 1 - x) < 0).all()
    assert ssim(x, x).shape == (2, 4)
    with pytest.raises(ValueError, match="one shape"):
        inspect.unwrap(ssim)(x, x[:1])  # without the shape checks of the test run
