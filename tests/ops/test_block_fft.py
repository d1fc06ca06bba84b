"""The block transform: the Fourier transform for every cut into factors, its definition for any matrices."""

import pytest
import torch

from hippodrome.ops.block_fft import block_fft, dft
from hippodrome.ops.block_fft.examples import inputs
from hippodrome.testing.ops import CHECKS, check_op, close

CUTS = [(2,), (16,), (2, 2), (4, 2), (3, 5), (16, 2), (2, 16), (4, 4, 4), (7, 3, 2), (16, 16, 4)]


@pytest.mark.parametrize("sizes", CUTS)
@pytest.mark.parametrize("inverse", [False, True])
def test_with_fourier_matrices_it_is_the_fourier_transform(sizes, inverse):
    x, _ = inputs(sizes=sizes)
    matrices = [dft(m, inverse=inverse, dtype=torch.float64) for m in sizes]
    found = torch.view_as_complex(block_fft(x, matrices, inverse=inverse))
    whole = torch.view_as_complex(x)
    close_complex(found, torch.fft.ifft(whole, dim=1) if inverse else torch.fft.fft(whole, dim=1), 1e-12)


def close_complex(found, expected, tolerance):
    close(torch.view_as_real(found), torch.view_as_real(expected), tolerance, "transform")


# A spectrum is in float32 at least, whatever comes in.
@pytest.mark.parametrize(
    "check", [c for c in CHECKS if c.__name__ != "check_bfloat16"], ids=lambda c: c.__name__
)
def test_contract(check):
    """Matrices as single arguments: the checks know no lists."""

    def door(x, first, second, third, *, backend=None, inverse=False):
        return block_fft(x, [first, second, third], inverse=inverse, backend=backend)

    def examples(t=24, **settings):
        x, matrices = inputs(**settings)
        return x, *matrices

    for inverse in (False, True):
        check_op(door, ["torch"], examples, along_time=(), options={"inverse": inverse}, checks=[check])


def test_forth_and_back_is_where_it_began():
    x, _ = inputs(sizes=(16, 8, 4), dtype=torch.float32)
    forth = block_fft(x, [dft(16), dft(8), dft(4)])
    back = block_fft(forth, [dft(m, inverse=True) for m in (4, 16, 8)], inverse=True)
    close(back, x, 1e-6, "forth and back")


def test_in_float32_it_is_as_exact_as_the_fast_transform():
    x, _ = inputs(b=1, d=2, sizes=(16, 16, 16), dtype=torch.float32)
    exact = torch.fft.fft(torch.view_as_complex(x.double()), dim=1)
    found = torch.view_as_complex(block_fft(x, [dft(16)] * 3))
    close_complex(found.to(exact.dtype), exact, 1e-6)


def test_a_spectrum_of_half_precision_is_in_float32():
    x, _ = inputs(sizes=(4, 4))
    y = block_fft(x.bfloat16(), [dft(4)] * 2)
    assert y.dtype == torch.float32
    close(y, block_fft(x.bfloat16().float(), [dft(4)] * 2), 0.0, "the same numbers")


def test_what_does_not_fit_is_told():
    x, matrices = inputs()
    with pytest.raises(ValueError, match="sizes m multiply to n"):
        block_fft(x, matrices[:2])
    with pytest.raises(ValueError, match="Pad x with zeros"):
        block_fft(x[:, :23], matrices)
