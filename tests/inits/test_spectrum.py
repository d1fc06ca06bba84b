"""Initial poles: the diagonal approximations of HiPPO, and the ring of the LRU."""

import math

import pytest
import torch

from hippodrome.inits.hippo import legs, low_rank
from hippodrome.inits.perturb import structured_ptd
from hippodrome.inits.spectrum import S4D, hippo_blocks, inv, lin, real, ring


def test_lin_and_inv_and_real():
    torch.testing.assert_close(lin(6)[:, 1], math.pi * torch.arange(3, dtype=torch.float64))
    known = torch.tensor([17.82535363, 4.24413182, 1.52788745, 0.36378273], dtype=torch.float64)
    torch.testing.assert_close(inv(8)[:, 1], known, rtol=0, atol=5e-9)
    assert real(6)[:, 0].tolist() == [-1, -2, -3]
    for name in ("lin", "inv", "legs"):
        assert (S4D[name](8)[:, 0] == -0.5).all()


@pytest.mark.parametrize("name", sorted(S4D))
def test_every_start_is_stable_and_in_float64(name):
    modes = S4D[name](16)
    assert modes.shape == (8, 2)
    assert modes.dtype == torch.float64
    assert (modes[:, 0] < 0).all()
    with pytest.raises(ValueError, match="even"):
        S4D[name](7)


def test_ring_is_uniform_in_area():
    """|lambda| stays in the ring, the mean of |lambda|^2 is that of a uniform ring, and so is its spread."""
    nu, theta, gamma = ring(20000, 0.5, 0.9, math.pi / 2)
    square = torch.exp(-2 * torch.exp(nu))
    assert square.min() >= 0.25
    assert square.max() <= 0.81
    assert square.mean().item() == pytest.approx((0.25 + 0.81) / 2, abs=4e-3)
    assert square.std().item() == pytest.approx((0.81 - 0.25) / math.sqrt(12), abs=4e-3)
    assert theta.exp().min() > 0
    assert theta.exp().max() <= math.pi / 2
    assert theta.exp().mean().item() == pytest.approx(math.pi / 4, abs=0.02)
    torch.testing.assert_close(gamma.exp().square(), 1 - square, rtol=1e-12, atol=0)


def test_the_whole_disc_gives_finite_numbers():
    for values in ring(10000, 0.0, 1.0, 6.28):
        assert values.isfinite().all()


@pytest.mark.parametrize("bad", [(0.9, 0.5, 1.0), (-0.1, 0.5, 1.0), (0.5, 1.1, 1.0), (0.5, 0.9, 0.0)])
def test_a_ring_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="r_min < r_max"):
        ring(4, *bad)


def test_two_blocks_of_four_are_one_of_four_twice():
    """The published code's half is the conjugate: -1/2 - 4.60329301 i and -1/2 - 0.55650112 i, twice."""
    poles, _, _ = hippo_blocks(8, 2)
    expected = torch.tensor([0.55650112, 4.60329301] * 2, dtype=torch.float64)
    torch.testing.assert_close(poles[:, 1], expected, rtol=0, atol=5e-9)
    assert (poles[:, 0] == -0.5).all()


@pytest.mark.parametrize("alpha", [None, 0.1])
@pytest.mark.parametrize("blocks", [1, 3])
def test_blocks_and_their_conjugates_are_the_matrix(blocks, alpha):
    size = 8
    n = size * blocks
    poles, V, V_inv = (torch.view_as_complex(x.contiguous()) for x in hippo_blocks(n, blocks, alpha))
    assert V.shape == (n, n // 2)
    assert V_inv.shape == (n // 2, n)
    A, _ = legs(size)
    P = low_rank("legs", size)
    one = A + P @ P.T if alpha is None else A + structured_ptd(size, alpha).E
    torch.testing.assert_close(
        2 * (V @ torch.diag(poles) @ V_inv).real, torch.block_diag(*[one] * blocks), rtol=0, atol=1e-11
    )
    torch.testing.assert_close(2 * (V @ V_inv).real, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(V_inv @ V, torch.eye(n // 2, dtype=V.dtype), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "blocks"), [(8, 3), (6, 2), (0, 1), (8, 0), (7, 1)])
def test_blocks_that_do_not_fit_are_refused(n, blocks):
    with pytest.raises(ValueError, match=r"multiple of 2 \* blocks"):
        hippo_blocks(n, blocks)
