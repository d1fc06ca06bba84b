"""Hankel products: the dossier's numbers, the dense matrix, gradients, sizes, and what is refused."""

import pytest
import torch

from hippodrome.layers.hankel import HankelMap, hankel_matrix, hankel_product


def test_a_product_worked_out_by_hand() -> None:
    h, x = torch.arange(1.0, 8.0, dtype=torch.float64), torch.tensor([1.0, -1.0, 2.0, 0.5]).double()
    wanted = torch.tensor([7.0, 9.5, 12.0, 14.5]).double()
    torch.testing.assert_close(hankel_product(h, x), wanted, atol=1e-13, rtol=0)
    assert hankel_matrix(h, 4)[2].tolist() == [3.0, 4.0, 5.0, 6.0]
    torch.testing.assert_close(hankel_matrix(h, 4) @ x, wanted, atol=0, rtol=0)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 5), (3, 8), (8, 3), (1, 6), (6, 1), (16, 16)])
def test_any_shape_is_its_dense_matrix(m: int, n: int) -> None:
    h, x = torch.randn(2, m + n - 1).double(), torch.randn(4, 1, n).double()
    dense = torch.einsum("pmn,bqn->bpm", hankel_matrix(h, n), x)
    torch.testing.assert_close(hankel_product(h, x), dense, atol=1e-12, rtol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    h = torch.randn(2, 10, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 1, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(hankel_product, (h, x))


def test_a_map_is_its_matrix_with_far_fewer_numbers() -> None:
    layer = HankelMap(64, 64, factors=2)
    assert sum(p.numel() for p in layer.parameters()) == 2 * (2 * 64 - 1) + 4 * 64 + 64
    layer.bias.data.normal_()
    x = torch.randn(80, 64)
    many, few = layer(x), layer(x[:5])  # one dense product, and transforms
    torch.testing.assert_close(few, x[:5] @ layer.matrix().T + layer.bias, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(many[:5], few, atol=1e-5, rtol=1e-5)
    assert layer.matrix().std().item() == pytest.approx(1 / 8, rel=0.15)  # outputs as large as inputs
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"made of 4 or more.*got 3"):
        hankel_product(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="got 4, 0 and 2"):
        HankelMap(4, 0)
