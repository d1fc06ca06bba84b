"""minGRU against a loop written from the paper."""

import torch
import torch.nn.functional as F

from hippodrome.mixers.min_gru import MinGRU
from hippodrome.testing.mixers import check_mixer, prepared, tokens


def test_against_the_paper_step_by_step() -> None:
    mixer = prepared(MinGRU(6, d_recurrent=4, taps=2))
    x = tokens(mixer, 1, 9)[0]
    padded = F.pad(x.T[None], (1, 0))
    inner = F.conv1d(padded, mixer.conv.weight, mixer.conv.bias, groups=6)[0].T
    W_z, W_c = mixer.in_proj.weight.chunk(2)
    b_z, b_c = mixer.in_proj.bias.chunk(2)
    h = torch.zeros(4, dtype=torch.float64)
    states = []
    for x_t in inner:
        z = torch.sigmoid(W_z @ x_t + b_z)
        h = (1 - z) * h + z * (W_c @ x_t + b_c)
        states.append(h)
    expected = torch.stack(states) @ mixer.out_proj.weight.T
    torch.testing.assert_close(mixer(x[None])[0][0], expected, atol=1e-12, rtol=1e-10)


def test_a_gate_that_is_shut_remembers_and_one_that_is_open_forgets() -> None:
    mixer = MinGRU(4, taps=1).double()
    h = torch.randn(1, 4, dtype=torch.float64)
    x = tokens(mixer, 1, 1)
    state = mixer.init_state(1)._replace(h=h)
    with torch.no_grad():
        mixer.in_proj.bias[:4] = -60.0
        torch.testing.assert_close(mixer(x, state)[1].h, h)
        mixer.in_proj.bias[:4] = 60.0
        candidate = mixer.in_proj(mixer.conv(x, None, None)[0])[:, 0, 4:]
        torch.testing.assert_close(mixer(x, state)[1].h, candidate)


def test_other_widths_keep_the_contract() -> None:
    check_mixer(MinGRU(6, d_recurrent=10, taps=1))
