"""RG-LRU against a loop written from the paper, and the sizes it promises."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.rg_lru import RGLRU
from hippodrome.testing.mixers import check_mixer, prepared, tokens


def test_against_the_paper_step_by_step() -> None:
    mixer = prepared(RGLRU(6, d_recurrent=4, taps=3))
    x = tokens(mixer, 1, 9)[0]
    inner, gate = mixer.in_proj(x).chunk(2, -1)
    padded = F.pad(inner.T[None], (2, 0))
    inner = F.conv1d(padded, mixer.conv.weight, mixer.conv.bias, groups=4)[0].T
    W_a, W_x = mixer.gates.weight.chunk(2)
    b_a, b_x = mixer.gates.bias.chunk(2)
    a = torch.sigmoid(mixer.Lambda)
    h = torch.zeros(4, dtype=torch.float64)
    states = []
    for x_t in inner:
        r = torch.sigmoid(W_a @ x_t + b_a)
        i = torch.sigmoid(W_x @ x_t + b_x)
        a_t = a ** (8 * r)
        h = a_t * h + torch.sqrt(1 - a_t**2) * (i * x_t)
        states.append(h)
    expected = mixer.out_proj(torch.stack(states) * F.gelu(gate))
    torch.testing.assert_close(mixer(x[None])[0][0], expected, atol=1e-12, rtol=1e-9)


def test_other_widths_keep_the_contract() -> None:
    check_mixer(RGLRU(6, d_recurrent=10, taps=1))


def test_first_decays_lie_between_nine_tenths_and_nearly_one() -> None:
    decay = torch.sigmoid(RGLRU(512).Lambda.detach().double()) ** 8
    assert 0.9 - 1e-4 < float(decay.min()) < 0.902
    assert 0.997 < float(decay.max()) < 0.999 + 1e-4
    assert float(decay.mean()) == pytest.approx(0.9495, abs=0.005)


def test_white_input_keeps_the_state_at_unit_size_for_any_dt() -> None:
    mixer = RGLRU(1, taps=1).double()
    with torch.no_grad():
        mixer.gates.weight.zero_()
        mixer.gates.bias.copy_(torch.tensor([0.0, 40.0]))
        inner = torch.randn(1, 40_000, 1, dtype=torch.float64)
        for dt in (0.5, 1.0, 7.0):
            a, u = mixer.drive(inner, torch.full((1, 40_000), dt, dtype=torch.float64))
            assert float((a**2 + (u / inner) ** 2).sub(1).abs().max()) < 1e-9


def test_a_shut_gate_gives_finite_gradients() -> None:
    mixer = RGLRU.example()
    with torch.no_grad():
        mixer.gates.bias.fill_(-200.0)
    y, _ = mixer(tokens(mixer, 1, 4, torch.float32))
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())
