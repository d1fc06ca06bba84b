"""H3: the shift is a filter, the products are the published ones, time runs in blocks that do not grow."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers import h3
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.h3 import H3
from hippodrome.ops.causal_conv import causal_conv
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.testing.mixers import prepared, tokens, warm_state
from hippodrome.testing.ops import close


def filtered(mixer, k):
    """The shift by its definition: a state moved by one place, read by C, and the skip."""
    state = torch.zeros(*k.shape[::2], mixer.taps, dtype=k.dtype)
    outputs = []
    for t in range(k.shape[1]):
        state = torch.cat([k[:, t, :, None], state[..., :-1]], -1)
        outputs.append((mixer.shift * state).sum(-1) + mixer.shift_skip * k[:, t])
    return torch.stack(outputs, 1)


def test_the_shift_is_its_system_and_a_grouped_convolution():
    mixer = H3(6, taps=5).double()
    k = torch.randn(2, 30, 6, dtype=torch.float64)
    expected = filtered(mixer, k)
    close(causal_conv(k, mixer._weights())[0], expected, 1e-12, "the system")
    kernel = mixer.shift.clone()
    kernel[:, 0] += mixer.shift_skip
    padded = F.pad(k.transpose(1, 2), (4, 0))
    convolved = F.conv1d(padded, kernel.flip(1)[:, None], groups=6).transpose(1, 2)
    close(convolved, expected, 1e-12, "conv1d")


def test_with_queries_and_values_of_one_and_an_impulse_it_is_the_shift():
    mixer = H3(5, d_state=4, taps=5).double()
    with torch.no_grad():
        mixer.in_proj.weight.zero_()
        mixer.in_proj.bias.fill_(1.0)
        mixer.in_proj.weight[5:10] = torch.eye(5)
        mixer.in_proj.bias[5:10] = 0
        mixer.system.C.zero_()  # leaves D, which is the impulse
        mixer.system.D.fill_(1.0)
        mixer.out_proj.weight.copy_(torch.eye(5))
        mixer.out_proj.bias.zero_()
    x = torch.randn(2, 40, 5, dtype=torch.float64)
    close(mixer(x)[0], filtered(mixer, x), 1e-12, "shift")


def diagonal_kernel(system, length):
    """2 Re sum_n C_n B_n (e^{dt A_n} - 1) / A_n e^{dt A_n l}, one row for each head."""
    A = torch.complex(-system.log_A_real.exp(), system.A_imag)
    turn = torch.exp(system.log_dt.exp()[:, None] * A)
    C, B = torch.view_as_complex(system.C), torch.view_as_complex(system.B)
    powers = turn[..., None] ** torch.arange(length)
    return 2 * ((C * B * (turn - 1) / A)[..., None] * powers).sum(1).real


@pytest.mark.parametrize("p", [1, 3])
def test_convolution_and_recurrence_are_the_formula(p):
    mixer = prepared(H3(6, d_state=8, taps=5, head_dim=p))
    heads, t = 6 // p, 33
    x = tokens(mixer, 2, t)
    with torch.no_grad():
        q, k, v = (x @ mixer.in_proj.weight.T + mixer.in_proj.bias).split(6, -1)
        k, kernel = filtered(mixer, k), diagonal_kernel(mixer.system, t)
        y = torch.zeros_like(q)
        for head in range(heads):
            for i in range(p):
                for j in range(p):
                    product = (k[..., i * heads + head] * v[..., j * heads + head])[..., None]
                    after = fft_conv(product, kernel[head : head + 1]) + mixer.system.D[head] * product
                    y[..., j * heads + head] += q[..., i * heads + head] * after[..., 0]
        expected = y @ mixer.out_proj.weight.T + mixer.out_proj.bias
        close(mixer(x)[0], expected, 1e-10, "convolution")
        close(run_steps(mixer, x)[0], expected, 1e-10, "recurrence")


@torch.no_grad()
def test_time_runs_in_blocks_where_no_gradient_is_kept(monkeypatch):
    mixer = prepared(H3(4, d_state=4, taps=5, head_dim=2))
    x, state = tokens(mixer, 2, 150), warm_state(mixer, 2)
    resets = torch.rand(2, 150) < 0.05
    with torch.enable_grad():
        whole, last = mixer(x, state, resets=resets)
    monkeypatch.setattr(h3, "HELD", 16)
    monkeypatch.setattr(h3, "TABLES", 16)
    lengths, inside = [], H3._tokens

    def watched(self, state, x, resets):
        lengths.append(x.shape[1])
        return inside(self, state, x, resets)

    monkeypatch.setattr(H3, "_tokens", watched)
    got, after = mixer(x, state, resets=resets)
    assert lengths == [64, 64, 22]
    close(got, whole, 1e-11, "blocks")
    close(after.window, last.window, 1e-12, "window")
    close(after.h, last.h, 1e-11, "state")


@torch.no_grad()
def test_a_block_is_bounded_whatever_the_length(monkeypatch):
    seen = []

    def watched(self, state, x, resets):
        seen.append(x.shape[1])
        return x, state

    monkeypatch.setattr(H3, "_tokens", watched)
    for d, longest in ((1024, h3.TABLES), (128, h3.HELD // 128)):
        seen.clear()
        H3(d, d_state=2, taps=2)(torch.zeros(1, 4 * longest + 1, 1).expand(-1, -1, d))
        assert seen == [longest] * 4 + [1]


def test_the_system_starts_at_linear_poles_and_trains_slowly():
    mixer = H3(8, d_state=8)
    assert torch.allclose(mixer.system.A_imag, torch.pi * torch.arange(4.0))
    assert torch.allclose(mixer.system.log_A_real.exp(), torch.tensor(0.5))
    assert mixer.shift.abs().max() <= 64**-0.5
    (group,) = mixer.parameter_groups()
    assert (group.max_lr, group.decay) == (1e-3, False)
    assert {id(p) for p in group.parameters} == {
        id(p) for p in (mixer.system.log_dt, mixer.system.log_A_real, mixer.system.A_imag, mixer.system.B)
    }


def test_sizes_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="head_dim"):
        H3(8, head_dim=3)
    with pytest.raises(ValueError, match="at least one tap; got taps=0"):
        H3(8, taps=0)
    with pytest.raises(ValueError, match="even"):
        H3(8, d_state=5)
    with pytest.raises(ValueError, match="no continuous time"):
        H3.example()(torch.randn(1, 3, 8), dt=torch.ones(1, 3))
