"""DSS: published kernels of both signs, plain normalization, the zero-order hold, and what grows."""

import math

import pytest
import torch

from hippodrome.mixers.base import run_steps
from hippodrome.mixers.dss import DSS
from hippodrome.mixers.s4d import S4D
from hippodrome.testing.mixers import check_forward, check_mixer
from hippodrome.testing.ops import close

GOLDEN = {
    -0.5: "-.0440192 -.0245003 -.00449929 .01402801 .02945265 .04059696 .04680409 .04795113",
    0.5: "-.02596744 -.01281777 .00306757 .02029986 .03720214 .05195595 .06277829 .06811354",
}


def impulse(length, d=1):
    x = torch.zeros(1, length, d, dtype=torch.float64)
    x[0, 0] = 1
    return x


def plain(mixer, **values):
    """The mixer in float64 with these parameters and neither skip nor output map: y is the convolution."""
    mixer = mixer.double()
    with torch.no_grad():
        mixer.D.zero_()
        for name, value in values.items():
            getattr(mixer, name).copy_(torch.as_tensor(value, dtype=torch.float64))
    mixer.output = torch.nn.Identity()
    return mixer


def free(d, n, l_max, separate_dt=False):
    """A softmax mixer with poles of both signs."""
    g = torch.Generator().manual_seed(1)
    poles = torch.stack([torch.linspace(-0.8, 0.6, n), 5 * torch.rand(n, generator=g)], -1)
    return plain(DSS(d, n, "softmax", l_max, separate_dt, dt_min=0.05), Lambda=poles)


@pytest.mark.parametrize("re", [-0.5, 0.5])
def test_published_softmax_kernel_in_every_view(re):
    mixer = DSS(1, 1, "softmax", l_max=8)
    mixer = plain(mixer, Lambda=[[re, math.pi]], W=[[[1.0, 0.5]]], log_dt=[math.log(0.1)])
    expected = torch.tensor([float(v) for v in GOLDEN[re].split()], dtype=torch.float64)
    for got in (
        mixer.kernel(8)[0],
        mixer(impulse(8))[0][0, :, 0],
        run_steps(mixer, impulse(8))[0][0, :, 0],
        mixer(impulse(8), dt=torch.ones(1, 8, dtype=torch.float64))[0][0, :, 0],
    ):
        # The regularized reciprocal moves the last digit.
        torch.testing.assert_close(got, expected, rtol=0, atol=1.5e-8)


@pytest.mark.parametrize("separate_dt", [False, True])
def test_softmax_kernel_is_the_plain_complex_normalization(separate_dt):
    mixer = free(3, 5, 40, separate_dt)
    poles, W, size = mixer.poles(), torch.view_as_complex(mixer.W), mixer.log_dt.exp()
    size = size if separate_dt else size[:, None].expand(-1, 2)
    z = torch.complex(size[:, :1] * poles[:, 0], size[:, 1:] * poles[:, 1])
    rows = torch.exp(z[..., None] * torch.arange(40))
    rows = rows / rows.sum(-1, keepdim=True)
    expected = ((W / torch.view_as_complex(poles))[..., None] * rows).sum(1).real
    close(mixer.kernel(40), expected, 1e-5, "kernel")
    close(mixer(impulse(40, 3))[0][0].T, expected, 1e-5, "forward")


def test_the_reciprocal_is_regularized_by_1e7():
    mixer = free(2, 4, 30)
    poles, W = torch.view_as_complex(mixer.poles()), torch.view_as_complex(mixer.W)
    z = mixer.log_dt.exp()[:, None] * poles
    lags = torch.arange(30)
    falling = torch.where(z.real > 0, -z, z)
    den = (torch.exp(falling * 30) - 1) * poles
    weight = W * (torch.exp(falling) - 1) * den.conj() / (den.abs().square() + 1e-7)
    exponent = z[..., None] * lags - torch.where(z.real > 0, z * 29, 0)[..., None]
    close(mixer.kernel(30), (weight[..., None] * torch.exp(exponent)).sum(1).real, 1e-12, "kernel")


def test_exp_is_the_zero_order_hold_with_input_weight_one():
    """By matrix exponentials, whatever dt does."""
    mixer = plain(DSS(1, 3))
    poles, W = torch.view_as_complex(mixer.poles()), torch.view_as_complex(mixer.W)[0]
    x, dt = torch.randn(1, 25, 1, dtype=torch.float64), 0.3 + 2 * torch.rand(1, 25, dtype=torch.float64)
    state, expected = torch.zeros(3, dtype=torch.complex128), []
    for t in range(25):
        whole = torch.zeros(4, 4, dtype=torch.complex128)
        whole[:3, :3], whole[:3, 3] = torch.diag(poles), 1.0
        step = torch.matrix_exp(whole * mixer.log_dt.exp() * dt[0, t])
        state = step[:3, :3] @ state + step[:3, 3] * x[0, t, 0]
        expected.append((W @ state).real)
    close(mixer(x, dt=dt)[0][0, :, 0], torch.stack(expected).detach(), 1e-9, "zero-order hold")


def test_exp_is_s4d_with_half_the_weight():
    """S4D doubles the real part for the conjugates it leaves out; DSS does not."""
    mixer, peer = plain(DSS(3, 4)), S4D(3, 8).double()
    peer.output = torch.nn.Identity()
    with torch.no_grad():
        peer.D.zero_()
        peer.log_dt.copy_(mixer.log_dt)
        peer.log_A_real.copy_(mixer.Lambda[:, 0].expand(3, -1))
        peer.A_imag.copy_(mixer.Lambda[:, 1].expand(3, -1))
        peer.B.copy_(torch.tensor([1.0, 0.0]).expand_as(peer.B))
        peer.C.copy_(0.5 * mixer.W)
    x = torch.randn(2, 50, 3, dtype=torch.float64)
    close(mixer(x)[0], peer(x)[0], 1e-9, "S4D")


def test_exp_with_separate_steps_divides_by_the_pole_itself():
    mixer = plain(DSS(2, 4, separate_dt=True))
    poles, W = torch.view_as_complex(mixer.poles()), torch.view_as_complex(mixer.W)
    size = mixer.log_dt.exp()
    z = torch.complex(size[:, :1] * poles.real, size[:, 1:] * poles.imag)
    rows = W * (torch.exp(z) - 1) / poles
    expected = (rows[..., None] * torch.exp(z[..., None] * torch.arange(20))).sum(1).real
    close(mixer.kernel(20), expected, 1e-10, "kernel")
    close(mixer(impulse(20, 2))[0][0].T, expected, 1e-10, "forward")


def test_variants_of_exp_are_their_formulas():
    lags = torch.arange(20)
    for version in ("exp-re-im", "exp-no-scale", "clip"):
        mixer = plain(DSS(2, 4, version))
        if version == "clip":
            with torch.no_grad():
                mixer.Lambda[0, 0] = 0.3
        re, im = mixer.Lambda.detach().unbind(-1)
        re = re.clamp(max=1e-4) if version == "clip" else -re.exp()
        poles = torch.complex(re, im.exp() if version == "exp-re-im" else im)
        z = mixer.log_dt.exp()[:, None] * poles
        scale = 1.0 if version == "exp-no-scale" else (torch.exp(z) - 1) / poles
        rows = torch.view_as_complex(mixer.W) * scale
        expected = (rows[..., None] * torch.exp(z[..., None] * lags)).sum(1).real
        close(mixer.kernel(20), expected, 1e-10, version)
        close(mixer(impulse(20, 2))[0][0].T, expected, 1e-10, version)


def test_first_poles_are_those_of_legs_with_positive_imaginary_part():
    poles = DSS(2, 4).double().poles()
    assert torch.allclose(poles[:, 0], torch.full((4,), -0.5, dtype=torch.float64))
    assert (poles[:, 1].diff() > 0).all()
    assert (poles[:, 1] > 0).all()


def test_a_kernel_for_twice_the_length_is_another_function():
    short, long = free(1, 3, 16), free(1, 3, 32)
    long.load_state_dict(short.state_dict())
    difference = (short.kernel(16) - long.kernel(32)[:, :16]).abs().max()
    assert difference > 0.05 * short.kernel(16).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_growing_mode_stays_finite_and_right_over_a_long_kernel(dtype):
    mixer = plain(DSS(2, 2, "softmax", l_max=4096))
    with torch.no_grad():
        mixer.Lambda.copy_(torch.tensor([[1.0, 3.0], [-0.5, 1.0]]))
        mixer.log_dt.fill_(math.log(0.1))
    x = torch.randn(1, 4096, 2, dtype=torch.float64)
    expected = torch.fft.irfft(torch.fft.rfft(mixer.kernel(4096), 8192) * torch.fft.rfft(x[0].T, 8192), 8192)[
        :, :4096
    ].T
    mixer, x = mixer.to(dtype), x.to(dtype)
    y, state = mixer(x)
    assert y.isfinite().all()
    assert state.h.isfinite().all()
    assert mixer.kernel(4096).isfinite().all()
    close(y[0].double(), expected, 1e-8 if dtype == torch.float64 else 1e-3, "convolution")
    gradients = torch.autograd.grad(y.square().sum(), [mixer.Lambda, mixer.W, mixer.log_dt])
    assert all(g.isfinite().all() for g in gradients)


def test_contract_of_softmax_and_of_separate_steps():
    check_mixer(DSS(4, 3, "softmax", l_max=20))
    check_mixer(DSS(4, 3, separate_dt=True))


@pytest.mark.parametrize("with_dt", [False, True])
def test_contract_of_growing_modes(with_dt):
    mixer = DSS(4, 3, "softmax", l_max=20, dt_min=0.05)
    with torch.no_grad():
        mixer.Lambda[0, 0] = 2.0
    resets = torch.zeros(3, 13, dtype=torch.bool)
    resets[1, [0, 4, 9]] = True
    for dtype in (torch.float64, torch.float32):
        for marks in (None, resets):
            check_forward(mixer, 13, splits=(4, 9), resets=marks, with_dt=with_dt, dtype=dtype)


def test_growing_modes_take_the_gradients_of_repeated_steps():
    mixer = free(3, 4, 20)
    x = torch.randn(2, 17, 3, dtype=torch.float64)
    leaves = [mixer.Lambda, mixer.W, mixer.log_dt]
    got = torch.autograd.grad(mixer(x)[0].square().sum(), leaves)
    for a, b in zip(got, torch.autograd.grad(run_steps(mixer, x)[0].square().sum(), leaves), strict=True):
        close(a, b, 1e-8, "gradient")


def test_half_the_rate_is_twice_the_step():
    mixer = DSS.example().double()
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    slow = mixer(x, dt=torch.full((2, 20), 2.0, dtype=torch.float64))[0]
    close(mixer(x.repeat_interleave(2, 1))[0][:, 1::2], slow, 1e-10, "resolution")


def test_streaming_goes_on_beyond_l_max_with_the_same_recurrence():
    mixer = plain(DSS(2, 3, "softmax", l_max=10))
    x = torch.randn(1, 25, 2, dtype=torch.float64)
    pieces, state = [], None
    for part in x.split(10, 1):
        y, state = mixer(part, state)
        pieces.append(y)
    close(torch.cat(pieces, 1), run_steps(mixer, x)[0], 1e-11, "streamed")


def test_more_than_l_max_tokens_at_once_are_refused():
    mixer = DSS(2, 3, "softmax", l_max=10)
    mixer(torch.randn(1, 10, 2))
    with pytest.raises(ValueError, match=r"l_max = 10 lags.*got 11"):
        mixer(torch.randn(1, 11, 2))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="no version 'relu'"):
        DSS(4, version="relu")
    with pytest.raises(ValueError, match="l_max=None"):
        DSS(4, version="softmax")
    with pytest.raises(ValueError, match="l_max=7"):
        DSS(4, l_max=7)


def test_step_sizes_poles_and_weights_train_slowly_without_decay():
    mixer = DSS.example()
    (group,) = mixer.parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in (mixer.log_dt, mixer.Lambda, mixer.W)}
    assert (group.max_lr, group.decay) == (1e-3, False)
