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


GRIFFIN = {"gate_blocks": 2, "activation": "gelu_tanh", "bias": True, "whole_first": True}


def test_the_published_block_step_by_step() -> None:
    mixer = prepared(RGLRU(6, d_recurrent=8, taps=3, **GRIFFIN))
    x = tokens(mixer, 1, 9)[0]
    inner, gate = (x @ mixer.in_proj.weight.T + mixer.in_proj.bias).chunk(2, -1)
    fresh = [0, 4, 5]
    resets = torch.zeros(1, 9, dtype=torch.bool)
    resets[0, fresh[1:]] = True
    states = []
    for t, raw in enumerate(inner):
        start = max(f for f in fresh if f <= t)
        past = [inner[s] if s >= start else torch.zeros_like(raw) for s in (t - 2, t - 1, t)]
        x_t = (torch.stack(past, 1) * mixer.conv.weight[:, 0]).sum(1) + mixer.conv.bias
        parts = [x_t[4 * k : 4 * k + 4] @ mixer.gates.weight[k] + mixer.gates.bias[k] for k in range(2)]
        r = torch.sigmoid(torch.cat([part[:4] for part in parts]))
        i = torch.sigmoid(torch.cat([part[4:] for part in parts]))
        a_t = torch.sigmoid(mixer.Lambda) ** (8 * r)
        h = i * x_t if t in fresh else a_t * states[-1] + torch.sqrt(1 - a_t**2) * (i * x_t)
        states.append(h)
    out = torch.stack(states) * F.gelu(gate, approximate="tanh")
    expected = out @ mixer.out_proj.weight.T + mixer.out_proj.bias
    torch.testing.assert_close(mixer(x[None], resets=resets)[0][0], expected, atol=1e-12, rtol=1e-9)


def test_the_published_block_keeps_the_contract() -> None:
    check_mixer(RGLRU(6, d_recurrent=8, **GRIFFIN), length=7)


def test_gates_in_blocks_are_those_of_one_block_diagonal_map() -> None:
    blocks = prepared(RGLRU(6, gate_blocks=3))
    whole = prepared(RGLRU(6))
    whole.load_state_dict(
        {k: v for k, v in blocks.state_dict().items() if not k.startswith("gates")}, strict=False
    )
    with torch.no_grad():
        for k in range(2):  # the recurrence gate, then that of the input
            rows, part = slice(6 * k, 6 * k + 6), slice(2 * k, 2 * k + 2)
            whole.gates.weight[rows] = torch.block_diag(*(m[:, part].T for m in blocks.gates.weight))
            whole.gates.bias[rows] = blocks.gates.bias[:, part].flatten()
    x = tokens(whole, 2, 5)
    torch.testing.assert_close(blocks(x)[0], whole(x)[0], atol=1e-12, rtol=1e-9)
    with pytest.raises(ValueError, match="gate_blocks must divide the channels of the recurrence; got 4"):
        RGLRU(6, gate_blocks=4)
