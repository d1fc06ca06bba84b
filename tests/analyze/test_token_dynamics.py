"""Token dynamics: closed forms of one channel, the two fates, and the eigenvalues of the verdict."""

import math

import pytest
import torch

from hippodrome.analyze.token_dynamics import integrate, verdict


def one(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


@pytest.mark.parametrize(("mu", "last"), [(-1.0, 4.0), (0.5, 0.9)])
def test_one_token_follows_its_closed_form(mu: float, last: float) -> None:
    times = torch.linspace(0, last, 30, dtype=torch.float64)
    path = integrate(one(1.0), one(mu), one(1.0), times)
    expected = 1 / torch.sqrt(1 - 2 * mu * times)
    torch.testing.assert_close(path.tokens[:, 0, 0], expected, rtol=1e-6, atol=0)
    if mu == -1.0:
        assert float(path.tokens[-1]) == pytest.approx(1 / 3, rel=1e-6)


def test_a_positive_product_blows_up_at_half_a_unit_of_time() -> None:
    times = torch.linspace(0, 1, 401, dtype=torch.float64)
    path = integrate(one(1.0), one(1.0), one(1.0), times, bound=1e3)
    assert 0.497 < float(path.times[-1]) < 0.5
    assert verdict(one(1.0), one(1.0)) == ("divergent", (1.0,), True)


def test_convergent_tokens_shrink_with_the_root_of_time() -> None:
    torch.manual_seed(0)
    times = torch.cat([torch.zeros(1), torch.logspace(0, 4, 9)]).double()
    start = torch.tensor([[1.0], [-0.5], [0.8]], dtype=torch.float64)
    path = integrate(start, one(-1.0), one(1.0), times, S_delta=torch.tensor([0.7]).double())
    size = path.tokens[:, 0, 0].abs()
    slope = (size[-1].log() - size[-3].log()) / (times[-1].log() - times[-3].log())
    assert float(slope) == pytest.approx(-0.5, abs=0.02)
    # Step sizes go to softplus(0) = ln 2, so x^2 t goes to 1 / (2 |mu| ln 2).
    assert float(size[-1] ** 2 * times[-1]) == pytest.approx(1 / (2 * math.log(2)), rel=0.03)
    assert bool((path.tokens[-1].abs() < 0.05).all())


def test_the_eigenvalues_are_those_of_the_symmetric_part() -> None:
    torch.manual_seed(1)
    for n, d in ((2, 9), (5, 4)):
        B, C = torch.randn(2, n, d, dtype=torch.float64)
        product = C.T @ B
        whole = torch.linalg.eigvalsh((product + product.T) / 2)
        found = torch.tensor(verdict(B, C).eigenvalues, dtype=torch.float64)
        kept = whole[whole.abs() > 1e-9]
        torch.testing.assert_close(found[found.abs() > 1e-9], kept)
        assert verdict(B, C).fate == "divergent"
        assert not verdict(B, C).proven
    assert verdict(B, B).fate == "divergent"
    assert verdict(-B, B).fate == "convergent"
    assert verdict(0 * B, B).fate == "undecided"


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        verdict(one(1.0)[0], one(1.0)[0])
    with pytest.raises(ValueError, match="times ascend"):
        integrate(one(1.0), one(1.0), one(1.0), torch.tensor([0.0, 1.0, 1.0]).double())
