"""The learnable transform: at first the Fourier transform, and every matrix takes part in it."""

import pytest
import torch

from hippodrome.layers.butterfly import Butterfly


@pytest.mark.parametrize("points", [2, 8, 16, 32, 64, 512])
def test_at_first_it_is_the_fourier_transform(points):
    layer = Butterfly(points).double()
    with torch.no_grad():
        for name, matrix in layer.matrices.items():
            # The first values were rounded to float32.
            exact = torch.fft.fft(torch.eye(int(name), dtype=torch.complex128))
            assert (matrix - torch.view_as_real(exact)).abs().max() < 1e-6
            matrix.copy_(torch.view_as_real(exact))
    x = torch.randn(2, points, 3, dtype=torch.float64)
    for given in (x, torch.stack([x, torch.zeros_like(x)], -1)):
        y = torch.view_as_complex(layer(given))
        torch.testing.assert_close(y, torch.fft.fft(x, dim=1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("additive", [False, True])
def test_every_matrix_is_learned(additive):
    layer = Butterfly(128, additive)
    assert layer.sizes == [16, 8]
    layer(torch.randn(2, 128, 3)).square().sum().backward()
    assert all((p.grad != 0).all() for p in layer.parameters())


def test_additive_matrices_begin_near_the_fourier_matrices():
    layer = Butterfly(64, additive=True)
    x = torch.randn(2, 64, 3)
    exact = torch.view_as_real(torch.fft.fft(x, dim=1))
    off = (layer(x) - exact).norm() / exact.norm()
    assert 0.001 < off < 0.1


def test_other_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="power of two of steps, 2 or more; got 12"):
        Butterfly(12)
