"""Hankel singular values and balanced truncation: known values, invariance, and the promise kept."""

import pytest
import torch

from hippodrome import config
from hippodrome.analyze import balance, gramians
from hippodrome.analyze.identify import discrete_system
from hippodrome.analyze.systems import StateSpace


def _random(n: int, m: int, p: int, seed: int) -> StateSpace:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    A = draw(n, n)
    return StateSpace(0.97 * A / torch.linalg.eigvals(A).abs().max(), draw(n, m), draw(p, n), draw(p, m))


def test_one_state_has_the_hankel_value_of_its_geometric_series() -> None:
    one = StateSpace(*(torch.tensor([[v]], dtype=torch.float64) for v in (0.8, 2.0, 3.0, 0.0)))
    assert balance.hankel_values(one).tolist() == pytest.approx([6 / (1 - 0.64)], rel=1e-12)


def test_they_are_the_singular_values_of_the_map_from_past_to_future() -> None:
    system = _random(4, 1, 1, 0)
    system = system._replace(A=0.7 * system.A)
    kernel = system._replace(D=0 * system.D).kernel(400).flatten()
    i = torch.arange(200)
    hankel = kernel[i[:, None] + i]
    assert torch.allclose(balance.hankel_values(system), torch.linalg.svdvals(hankel)[:4], rtol=1e-9)


def test_they_are_roots_of_eigenvalues_and_do_not_depend_on_coordinates() -> None:
    system = _random(5, 2, 3, 1)
    W = gramians.controllability(system.A, system.B)
    M = gramians.observability(system.A, system.C)
    roots = torch.linalg.eigvals(W @ M).real.sqrt().sort(descending=True).values
    found = balance.hankel_values(system)
    assert torch.allclose(found, roots, rtol=1e-6)
    T = _random(5, 1, 1, 2).A + 2 * torch.eye(5, dtype=torch.float64)
    turned = StateSpace(T @ system.A @ T.inverse(), T @ system.B, system.C @ T.inverse(), system.D)
    assert torch.allclose(balance.hankel_values(turned), found, rtol=1e-8)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_truncation_of_random_systems_keeps_its_promise(seed: int, shape: tuple[int, int]) -> None:
    system = _random(8, *shape, seed)
    values = balance.hankel_values(system)
    for order in (1, 3, 6, 8):
        cut = balance.balanced_truncation(system, order)
        assert torch.allclose(cut.bound, 2 * values[order:].sum(), rtol=1e-9, atol=1e-12)
        assert cut.error <= cut.bound + 1e-10 * values[0]
        assert torch.linalg.eigvals(cut.system.A).abs().max() < 1
        if order == 8:
            assert cut.kernel_error < 1e-10 * values[0]
        else:
            # No system of that order comes nearer than the first value left out.
            assert cut.error >= values[order] * (1 - 1e-6)


def test_truncation_of_a_layer_cuts_each_channel_within_its_bound() -> None:
    torch.manual_seed(0)
    mixer = config.find("mixers", "s4d")(4, d_state=16, dt_min=1e-2)
    system = discrete_system(mixer).system
    for order in (2, 8, 14):
        cut = balance.balanced_truncation(system, order)
        assert cut.system.A.shape == (4, order, order)
        assert bool((cut.error <= cut.bound * (1 + 1e-9)).all())
        assert bool((cut.error > 0).all())
        assert bool((cut.kernel_error <= cut.bound).all())
    assert torch.allclose(
        balance.hankel_values(system), balance.hankel_values(system.dense()), rtol=1e-9, atol=1e-10
    )


def test_the_effective_order_is_the_fewest_states_that_are_promised_to_do() -> None:
    values = torch.tensor([[1.0, 0.1, 0.004, 0.0005], [1.0, 1.0, 1.0, 1.0]]).double()
    assert balance.effective_order(values).tolist() == [2, 4]
    assert balance.effective_order(values, 0.5).tolist() == [1, 4]


def test_a_state_that_carries_nothing_is_no_trouble() -> None:
    torch.manual_seed(0)
    mixer = config.find("mixers", "s4d")(2, d_state=8, init="real", dt_min=0.1, dt_max=0.2)
    with torch.no_grad():
        mixer.C[..., 1] = 0
    system = discrete_system(mixer).system
    cut = balance.balanced_truncation(system, 7)
    assert bool(torch.isfinite(cut.system.A).all())
    assert bool((cut.error <= cut.bound + 1e-12).all())


@pytest.mark.parametrize("order", [0, 9])
def test_an_order_out_of_range_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        balance.balanced_truncation(_random(8, 1, 1, 0), order)
