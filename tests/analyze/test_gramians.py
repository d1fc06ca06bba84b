"""Gramians against their known values, their equations and each other; least energy; the reachable set."""

import math

import pytest
import torch

from hippodrome.analyze import gramians
from hippodrome.analyze.systems import Modal
from hippodrome.ops import _pairs

A = torch.diag(torch.tensor([0.5, 0.9], dtype=torch.float64))
B = torch.ones(2, 1, dtype=torch.float64)


def _stable(n: int, m: int, seed: int, radius: float = 0.95) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    square = torch.randn(n, n, generator=g, dtype=torch.float64)
    square = radius * square / torch.linalg.eigvals(square).abs().max()
    return square, torch.randn(n, m, generator=g, dtype=torch.float64)


def _modal(seed: int = 0, n: int = 5, m: int = 1, p: int = 1, systems: int = 3) -> Modal:
    g = torch.Generator().manual_seed(seed)
    decay = -torch.rand(systems, n, generator=g, dtype=torch.float64).mul(6).neg().exp()
    turn = 3 * torch.rand(systems, n, generator=g, dtype=torch.float64)
    log_a = torch.stack([decay, turn], -1)
    return Modal(
        log_a,
        torch.randn(systems, n, m, 2, generator=g, dtype=torch.float64),
        torch.randn(systems, p, n, 2, generator=g, dtype=torch.float64),
        torch.randn(systems, p, m, generator=g, dtype=torch.float64),
    )


def test_two_known_gramians_in_discrete_time() -> None:
    whole = torch.tensor([[1.333333, 1.818182], [1.818182, 5.263158]]).double()
    five = torch.tensor([[1.332031, 1.784631], [1.784631, 3.428008]]).double()
    assert torch.allclose(gramians.controllability(A, B), whole, atol=6e-7, rtol=0)
    assert torch.allclose(gramians.controllability(A, B, 5), five, atol=6e-7, rtol=0)


def test_a_known_gramian_in_continuous_time() -> None:
    poles = torch.diag(torch.tensor([-1.0, -2.0], dtype=torch.float64))
    known = torch.tensor([[0.5, 1 / 3], [1 / 3, 0.25]], dtype=torch.float64)
    assert torch.allclose(gramians.controllability(poles, B, form="continuous"), known, rtol=1e-9, atol=1e-13)
    assert torch.allclose(gramians.over_time(poles, B, 40.0), known, rtol=1e-9, atol=1e-13)
    closed = gramians.diagonal(
        torch.tensor([[-1.0, 0.0], [-2.0, 0.0]]), torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    )
    assert torch.allclose(closed[..., 0], known, rtol=1e-9, atol=1e-14)


def test_the_known_least_energy_lands_exactly() -> None:
    target = torch.tensor([1.0, 0.0], dtype=torch.float64)
    found = gramians.least_energy(A, B, target, 5)
    assert math.isclose(found.energy, 2.481716, abs_tol=1e-6)
    x = torch.zeros(2, dtype=torch.float64)
    for u in found.inputs:
        x = A @ x + B @ u
    assert torch.allclose(x, target, rtol=1e-9, atol=1e-12)
    W = gramians.controllability(A, B, 5)
    assert math.isclose(found.energy, float(target @ torch.linalg.solve(W, target)), rel_tol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 64, 65])
def test_a_finite_gramian_is_its_sum(steps: int) -> None:
    a, b = _stable(5, 2, steps, radius=1.05)
    total, column = torch.zeros(5, 5, dtype=torch.float64), b
    for _ in range(steps):
        total, column = total + column @ column.mT, a @ column
    assert torch.allclose(gramians.controllability(a, b, steps), total, rtol=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_infinite_gramians_solve_their_equations(seed: int) -> None:
    a, b = _stable(6, 2, seed, radius=0.999)
    W = gramians.controllability(a, b)
    assert torch.allclose(a @ W @ a.mT + b @ b.mT, W, rtol=1e-9, atol=1e-11 * float(W.abs().max()))
    O = gramians.observability(a, b.mT)  # noqa: E741
    assert torch.allclose(a.mT @ O @ a + b @ b.mT, O, rtol=1e-9, atol=1e-11 * float(O.abs().max()))
    c = a - 1.1 * torch.eye(6, dtype=torch.float64)
    V = gramians.controllability(c, b, form="continuous")
    assert (c @ V + V @ c.mT + b @ b.mT).abs().max() < 1e-11 * V.abs().max() * c.abs().max()


def test_the_gramian_over_time_is_what_is_left_of_the_whole_one() -> None:
    a = _stable(6, 1, 3)[0] - torch.eye(6, dtype=torch.float64)
    b = _stable(6, 1, 3)[1]
    W = gramians.controllability(a, b, form="continuous")
    shift = torch.linalg.matrix_exp(2.5 * a)
    assert torch.allclose(gramians.over_time(a, b, 2.5), W - shift @ W @ shift.mT, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("steps", [None, 1, 40])
def test_closed_forms_agree_with_the_dense_ones(steps: int | None) -> None:
    system = _modal()
    dense = system.dense()
    W = gramians.controllability(dense.A, dense.B, steps)
    assert torch.allclose(gramians.modal(system, steps), W, rtol=1e-9, atol=1e-10 * float(W.abs().max()))
    if steps is None:
        factor = gramians.factor_of_modes(system.log_a, system.B[..., 0, :])
        assert torch.allclose(factor @ factor.mT, W, rtol=1e-9, atol=1e-11 * float(W.abs().max()))


def test_a_hermitian_gramian_is_the_sum_over_its_steps() -> None:
    system = _modal(systems=1)
    a = torch.view_as_complex(_pairs.exp(system.log_a))[0]
    b = torch.view_as_complex(system.B)[0]
    total = sum((a**k)[:, None] * b @ ((a**k)[:, None] * b).mH for k in range(12))
    found = gramians.diagonal(system.log_a, system.B, 12, form="discrete")[0]
    assert torch.allclose(torch.view_as_complex(found), total, rtol=1e-9, atol=1e-12)


def test_a_pole_that_stands_still_has_a_finite_gramian() -> None:
    still = torch.zeros(1, 2)
    one = torch.tensor([[[1.0, 0.0]]])
    assert gramians.diagonal(still, one, 7, form="discrete")[0, 0, 0] == 7
    assert gramians.diagonal(still, one, 2.5)[0, 0, 0] == 2.5


def test_states_of_unit_energy_lie_inside_the_outline_and_touch_it() -> None:
    a, b = _stable(2, 1, 5)
    W = gramians.controllability(a, b, 30)
    edge = gramians.reachable_outline(W, energy=2.0)
    energies = (edge * torch.linalg.solve(W, edge.T).T).sum(-1)
    assert torch.allclose(energies, torch.full_like(energies, 2.0), rtol=1e-9)
    best = gramians.least_energy(a, b, edge[17], 30)
    assert math.isclose(best.energy, 2.0, rel_tol=1e-8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gramians.controllability(2 * A, B), "stable"),
        (lambda: gramians.controllability(A, B, form="continuous"), "imaginary axis"),
        (lambda: gramians.controllability(A, B, 0), "at least 1 step"),
        (lambda: gramians.controllability(A, B, form="sampled"), "sampled"),
        (lambda: gramians.over_time(A, B, 0), "positive"),
        (lambda: gramians.diagonal(torch.zeros(1, 2), torch.ones(1, 1, 2)), "decay"),
        (lambda: gramians.least_energy(A, B, torch.ones(2), 0), "at least 1 step"),
        (lambda: gramians.least_energy(A, B, torch.tensor([1.0, 0.0]), 1), "cannot be reached"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
