"""GSS: widths, the kernel against the recurrence of its formula, causality, and longer inputs."""

import pytest
import torch

from hippodrome.mixers import _lti
from hippodrome.mixers.gss import GSS
from hippodrome.ops.fft_conv import fft_conv
from hippodrome.testing.ops import close


def poles(mixer):
    re, im = mixer.system.Lambda.unbind(-1)
    return torch.complex(-re.exp(), im.exp())


def test_the_system_runs_at_the_inner_width_and_the_gate_at_four_times_the_model(monkeypatch):
    mixer = GSS(16, d_inner=6, d_state=5)
    seen = []

    def watched(u, *rest, **more):
        seen.append(u.shape)
        return real(u, *rest, **more)

    real = _lti.diagonal_lti
    monkeypatch.setattr(_lti, "diagonal_lti", watched)
    y, state = mixer(torch.randn(2, 9, 16))
    assert seen == [(2, 9, 6)]
    assert y.shape == (2, 9, 16)
    assert state.h.shape == (2, 6, 5, 2)
    assert mixer.to_gate.weight.shape == (64, 16)
    assert mixer.from_system.weight.shape == (64, 6)
    assert mixer.output.weight.shape == (16, 64)
    assert GSS(16, 6, 5, d_gate=20).output.weight.shape == (16, 20)
    assert mixer.system.Lambda.shape == (5, 2)


def test_kernel_is_its_formula_and_equals_the_recurrence():
    mixer = GSS.example().double()
    lam, C = poles(mixer), torch.view_as_complex(mixer.system.C)
    scale = (torch.exp(lam) - 1) / lam
    kernel = ((C * scale)[..., None] * torch.exp(lam[:, None] * torch.arange(33))).sum(1).real
    close(mixer.system.kernel(33), kernel, 1e-9, "kernel")
    v = torch.randn(2, 33, 4, dtype=torch.float64)
    state, outputs = torch.zeros(2, 4, 6, dtype=torch.complex128), []
    for t in range(33):
        state = torch.exp(lam) * state + scale * v[:, t, :, None]
        outputs.append((C * state).sum(-1).real + mixer.system.D * v[:, t])
    expected = torch.stack(outputs, 1)
    close(mixer.system(v)[0], expected, 1e-9, "the system")
    close(fft_conv(v, kernel) + mixer.system.D * v, expected, 1e-9, "the convolution")


def test_the_whole_layer_is_its_formula():
    mixer = GSS.example().double()
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    gelu = torch.nn.functional.gelu
    u = gelu(x @ mixer.to_gate.weight.T + mixer.to_gate.bias)
    v = gelu(x @ mixer.to_system.weight.T + mixer.to_system.bias)
    v = (v - v.mean(-1, keepdim=True)) / torch.sqrt(v.var(-1, keepdim=True, correction=0) + 1e-5)
    y = fft_conv(v, mixer.system.kernel(12)) + mixer.system.D * v
    y = (y @ mixer.from_system.weight.T + mixer.from_system.bias) * u
    close(mixer(x)[0], y @ mixer.output.weight.T + mixer.output.bias, 1e-10, "layer")


def test_the_last_token_changes_the_last_output_alone():
    """A convolution that wraps around would carry it to the front."""
    mixer = GSS.example().double()
    x = torch.randn(1, 40, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, -1] += 1
    y, other = mixer(x)[0], mixer(changed)[0]
    assert torch.equal(y[:, :-1], other[:, :-1])
    assert not torch.equal(y[:, -1], other[:, -1])


def test_inputs_longer_than_any_seen_do_not_lose():
    """Fitted on 128 tokens of a stationary source, the loss on 512 is no larger."""
    torch.manual_seed(0)
    mixer = GSS(4, d_inner=4, d_state=8)
    optimizer = torch.optim.Adam(mixer.parameters(), 1e-2)

    def loss(length, seed):
        x = torch.randn(16, length, 4, generator=torch.Generator().manual_seed(seed))
        target = torch.nn.functional.pad(x, (0, 0, 2, 0))[:, :length]
        return (mixer(x)[0] - target).square().mean()

    first = loss(128, 0).item()
    for seed in range(60):
        optimizer.zero_grad()
        loss(128, seed).backward()
        optimizer.step()
    with torch.no_grad():
        short, long = float(loss(128, 1000)), float(loss(512, 1000))
    assert short < 0.8 * first
    assert long < 1.02 * short


@pytest.mark.parametrize("n", [2, 5])
def test_half_the_rate_is_twice_the_step_of_the_system(n):
    system = GSS(4, 4, n).double().system
    v = torch.randn(2, 20, 4, dtype=torch.float64)
    slow = system(v, dt=torch.full((2, 20), 2.0, dtype=torch.float64))[0]
    close(system(v.repeat_interleave(2, 1))[0][:, 1::2], slow, 1e-10, "resolution")


def test_the_poles_train_slowly_without_decay():
    mixer = GSS.example()
    (group,) = mixer.parameter_groups()
    assert group.parameters[0] is mixer.system.Lambda
    assert (group.max_lr, group.decay) == (1e-3, False)
