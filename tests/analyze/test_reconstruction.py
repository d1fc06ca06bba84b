"""Pasts rebuilt from HiPPO states, against the continuous projection and the best there is."""

import math

import pytest
import torch

from hippodrome.analyze import reconstruction
from hippodrome.mixers.hippo_legs import HippoLegS
from hippodrome.mixers.lmu import LMU


def test_legs_holds_the_exact_projection_of_a_held_signal() -> None:
    u = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    found = reconstruction.memorize("legs", 4, u)
    # c_n = sqrt(2n+1) times the mean over the past of u P_n(2 s / t - 1), by fine quadrature.
    s = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    z = 2 * s - 1
    polynomials = torch.stack([torch.ones_like(z), z, (3 * z**2 - 1) / 2, (5 * z**3 - 3 * z) / 2])
    held = u[(4 * s).long()]
    root = torch.sqrt(2 * torch.arange(4, dtype=torch.float64) + 1)
    expected = root * (polynomials * held).mean(-1)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_a_constant_is_rebuilt_exactly() -> None:
    found = reconstruction.memorize("legs", 8, torch.full((50,), 3.0))
    assert torch.allclose(found, 3.0 * torch.eye(8, dtype=torch.float64)[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("measure", "most"), [("legs", 2e-4), ("legt", 2e-4), ("lmu", 2e-4), ("fout", 0.1)])
def test_a_slow_signal_is_rebuilt(measure: str, most: float) -> None:
    signal = reconstruction.band_limited(1000, 10)
    coefficients = reconstruction.memorize(measure, 64, signal, 500)
    found = reconstruction.compare(measure, coefficients, signal, 500)
    assert found.error < most
    assert found.best <= found.error
    assert len(found.age) == (1000 if measure == "legs" else 500)
    assert torch.equal(found.truth, signal[-len(found.age) :])
    fewer = reconstruction.memorize(measure, 8, signal, 500)
    assert reconstruction.compare(measure, fewer, signal, 500).error > 5 * found.error


def test_lagt_remembers_what_is_recent() -> None:
    signal = reconstruction.band_limited(1000, 5)
    found = reconstruction.compare("lagt", reconstruction.memorize("lagt", 64, signal, 20), signal, 20)
    assert len(found.age) == 60
    assert found.error < 1e-2


def test_lmu_and_legt_hold_the_same() -> None:
    signal = reconstruction.band_limited(300, 4)
    both = [
        reconstruction.compare(m, reconstruction.memorize(m, 12, signal, 200), signal, 200).rebuilt
        for m in ("legt", "lmu")
    ]
    assert torch.allclose(*both, rtol=1e-9, atol=1e-9)


def test_mixers_hold_what_was_written_into_them() -> None:
    torch.manual_seed(0)
    signal = reconstruction.band_limited(300, 4)
    exact = reconstruction.of_mixer(HippoLegS(8, d_state=32, discretization="exact"), signal)
    alone = reconstruction.compare("legs", reconstruction.memorize("legs", 32, signal), signal)
    assert math.isclose(exact.error, alone.error, rel_tol=1e-6)
    assert torch.allclose(exact.rebuilt, alone.rebuilt, rtol=1e-9, atol=1e-8)
    window = reconstruction.of_mixer(LMU(8, d_state=32, theta=200.0), signal)
    alone = reconstruction.compare("lmu", reconstruction.memorize("lmu", 32, signal, 200), signal, 200)
    assert torch.allclose(window.rebuilt, alone.rebuilt, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(
    ("measure", "signal", "window", "words"),
    [
        ("legz", torch.ones(4), 2, "legs"),
        ("legt", torch.ones(4), None, "window"),
        ("legt", torch.ones(4), -1, "window"),
        ("legs", torch.ones(0), None, "at least one sample"),
        ("legs", torch.tensor([1.0, math.nan]), None, "finite"),
    ],
)
def test_bad_input_is_a_sentence(
    measure: str, signal: torch.Tensor, window: float | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        reconstruction.memorize(measure, 4, signal, window)
