"""Mamba: the whole-mixer fixture, a loop written from the paper, and how it starts."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hippodrome.mixers.base import run_steps
from hippodrome.mixers.mamba import Mamba, State
from hippodrome.ops.selective_scan import BACKENDS, selective_scan
from hippodrome.testing.mixers import check_mixer, prepared, tokens, warm_state
from hippodrome.testing.triton_ import device

PHASES = {
    "in_proj.weight": 1,
    "conv1d.weight": 2,
    "conv1d.bias": 3,
    "x_proj.weight": 4,
    "dt_proj.weight": 5,
    "out_proj.weight": 6,
}
LAST = [-0.16879792, -0.14895881, -0.10968653, -0.05610453, 0.00479686, 0.06507245, 0.11685869, 0.15339954]
NORMED = [
    *(-0.12448343, -0.11708357, -0.09440899, -0.05941781),
    *(-0.01667497, 0.02824328, 0.06947691, 0.10164658),
]
OPTIONS = {
    "jamba": {"norms": "learned", "proj_bias": True},
    "falcon": {"norms": "weightless", "d_inner": 12, "conv_bias": False},
    "groups": {"groups": 2, "norms": "learned"},
    "constant B": {"select_B": False, "norms": "weightless"},
    "constant C, groups": {"select_C": False, "groups": 4},
    "time-invariant but for dt": {"select_B": False, "select_C": False, "A_init": "half"},
    "complex": {"A_init": "s4d-lin", "norms": "learned", "groups": 2},
    "complex, constant B": {"A_init": "s4d-lin", "select_B": False},
    "complex, constant": {"A_init": "s4d-lin", "select_B": False, "select_C": False},
}


def with_options(name: str) -> Mamba:
    return Mamba(8, d_state=3, dt_rank=2, **OPTIONS[name])


def wave(shape: torch.Size | tuple[int, ...], rate: float, phase: float = 0.0) -> Tensor:
    count = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return torch.sin(rate * count + phase).view(shape)


def fixture(norms: str = "none") -> Mamba:
    mixer = Mamba(8, d_state=4, dt_rank=2, norms=norms).double()
    with torch.no_grad():
        for name, phase in PHASES.items():
            parameter = mixer.get_parameter(name)
            parameter.copy_(0.5 * wave(parameter.shape, 0.37, phase))
        mixer.A_log.copy_(torch.log(torch.arange(1.0, 5, dtype=torch.float64)).expand(16, 4))
        mixer.D.fill_(1.0)
        mixer.dt_proj.bias.fill_(-2.0)
    return mixer


@pytest.mark.parametrize("backend", [x.NAME for x in BACKENDS if x.NAME != "triton"])
@pytest.mark.parametrize(
    ("norms", "last", "total"),
    [("none", LAST, 3.29096829), ("learned", NORMED, 2.43146376), ("weightless", NORMED, 2.43146376)],
)
def test_whole_mixer_fixture(norms, last, total, backend, monkeypatch) -> None:
    monkeypatch.setattr("hippodrome.mixers.mamba.selective_scan", partial(selective_scan, backend=backend))
    mixer, x = fixture(norms), wave((1, 6, 8), 0.21)
    with torch.no_grad():
        state = mixer.init_state(1)
        found = [
            mixer(x)[0],
            run_steps(mixer, x)[0],
            torch.stack([mixer.advance_(x[:, t], state) for t in range(6)], 1),
            torch.cat([(first := mixer(x[:, :4]))[0], mixer(x[:, 4:], first[1])[0]], 1),
        ]
    for y in found:
        torch.testing.assert_close(y[0, -1], torch.tensor(last, dtype=torch.float64), atol=1e-8, rtol=0)
        assert float(y.sum()) == pytest.approx(total, abs=1e-8)


@pytest.mark.triton
@pytest.mark.skipif(device() is None, reason="Triton has neither a GPU here nor its interpreter turned on")
def test_whole_mixer_fixture_in_triton(monkeypatch) -> None:
    monkeypatch.setattr("hippodrome.mixers.mamba.selective_scan", partial(selective_scan, backend="triton"))
    with torch.no_grad():
        y = fixture("learned").to(device())(wave((1, 6, 8), 0.21).to(device()))[0].cpu()
    torch.testing.assert_close(y[0, -1], torch.tensor(NORMED, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_keeps_the_contract(name: str) -> None:
    check_mixer(with_options(name), batch=2, length=6)


@pytest.mark.parametrize("name", ["groups", "complex, constant B"])
def test_gradients_agree_with_finite_differences(name: str) -> None:
    mixer = prepared(with_options(name))
    mixer.requires_grad_(False)
    x = tokens(mixer, 2, 4)
    warm = warm_state(mixer, 2)
    resets = torch.tensor([[False, False, True, False], [False, False, False, False]])
    leaves = [x, *warm, *(p for p in (mixer.A_log, mixer.A_imag, mixer.B) if p is not None)]
    names = [n for n in ("A_log", "A_imag", "B") if getattr(mixer, n) is not None]

    def run(x, window, h, *values):
        named = dict(zip(names, values, strict=True))
        y, last = torch.func.functional_call(mixer, named, (x, State(window, h)), {"resets": resets})
        return y, *last

    leaves = [z.detach().clone().requires_grad_() for z in leaves]
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_a_complex_A_by_a_loop_in_complex_numbers() -> None:
    mixer = prepared(Mamba(8, d_state=3, dt_rank=2, A_init="s4d-lin", groups=2))
    x = tokens(mixer, 1, 6)
    xs, z = mixer.in_proj(x).chunk(2, -1)
    xs, _ = mixer.conv1d(xs, None, None)
    low, B, C = mixer.x_proj(xs).split([2, 12, 12], -1)
    steps = F.softplus(low @ mixer.dt_proj.weight.T + mixer.dt_proj.bias)
    A = -mixer.A_log.exp() + 1j * mixer.A_imag
    B, C = (torch.view_as_complex(m.reshape(6, 2, 3, 2)).repeat_interleave(8, 1) for m in (B, C))
    h = torch.zeros(16, 3, dtype=torch.complex128)
    outputs = []
    for t in range(6):
        dt = steps[0, t, :, None]
        h = torch.exp(dt * A) * h + dt * B[t] * xs[0, t, :, None]
        outputs.append((2 * (C[t] * h).sum(-1).real + mixer.D * xs[0, t]) * F.silu(z[0, t]))
    expected = torch.stack(outputs) @ mixer.out_proj.weight.T
    torch.testing.assert_close(mixer(x)[0][0], expected, atol=1e-12, rtol=1e-10)


def test_with_one_step_size_and_constant_vectors_it_is_a_convolution() -> None:
    mixer = prepared(Mamba(8, d_state=3, dt_rank=2, select_B=False, select_C=False))
    with torch.no_grad():
        mixer.dt_proj.weight.zero_()
    x = tokens(mixer, 1, 9)
    xs, z = mixer.in_proj(x).chunk(2, -1)
    xs, _ = mixer.conv1d(xs, None, None)
    dt = F.softplus(mixer.dt_proj.bias)[:, None]
    powers = torch.exp(-dt * mixer.A_log.exp())[..., None] ** torch.arange(9, dtype=torch.float64)
    kernel = torch.einsum("en,enk->ek", mixer.C * dt * mixer.B, powers)
    y = torch.stack([(kernel[:, : t + 1].flip(-1) * xs[0, : t + 1].T).sum(-1) for t in range(9)])
    expected = ((y + mixer.D * xs[0]) * F.silu(z[0])) @ mixer.out_proj.weight.T
    torch.testing.assert_close(mixer(x)[0][0], expected, atol=1e-12, rtol=1e-10)


def test_where_A_and_constant_vectors_start() -> None:
    lin = Mamba(64, d_state=5, A_init="s4d-lin", select_B=False, select_C=False)
    rates = lin._rates()
    torch.testing.assert_close(rates[3], torch.stack([torch.full((5,), -0.5), torch.arange(5.0)], -1))
    assert lin.B.shape == lin.C.shape == (128, 5, 2)
    # Independent complex numbers of unit mean square.
    assert float(lin.C.detach().square().sum(-1).mean()) == pytest.approx(1, abs=0.15)
    assert torch.equal(torch.view_as_complex(lin.B.detach()), torch.ones(128, 5, dtype=torch.complex64))
    assert torch.allclose(Mamba(8, A_init="half")._rates(), torch.tensor(-0.5))
    logs = Mamba(256, A_init="random").A_log.detach()
    assert float(logs.mean()) == pytest.approx(0, abs=0.05)
    assert float(logs.std()) == pytest.approx(1, abs=0.05)


def test_the_step_map_reads_a_norm_of_its_input_not_of_its_output() -> None:
    # The other order is what a fused kernel of Falcon-Mamba computed; scaling r must change nothing.
    mixer = prepared(with_options("falcon"))
    x = tokens(mixer, 1, 5)
    y = mixer(x)[0]
    with torch.no_grad():
        mixer.x_proj.weight[:2] *= 100
        torch.testing.assert_close(mixer(x)[0], y, rtol=1e-3, atol=1e-4)
        mixer.dt_proj.weight.mul_(2)
    assert not torch.allclose(mixer(x)[0], y, rtol=1e-2, atol=1e-3)


def test_names_and_shapes_are_those_of_the_checkpoints() -> None:
    shapes = {name: tuple(p.shape) for name, p in Mamba(32).named_parameters()}
    assert shapes == {
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "x_proj.weight": (2 + 2 * 16, 64),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "A_log": (64, 16),
        "D": (64,),
        "out_proj.weight": (32, 64),
    }


def test_options_add_the_names_of_published_checkpoints() -> None:
    learned = {name: tuple(p.shape) for name, p in Mamba(32, norms="learned").named_parameters()}
    added = {"dt_layernorm.weight": (2,), "b_layernorm.weight": (16,), "c_layernorm.weight": (16,)}
    assert learned == {n: tuple(p.shape) for n, p in Mamba(32).named_parameters()} | added
    falcon = Mamba(32, expand=16, d_inner=64, norms="weightless")
    assert set(falcon.state_dict()) == set(Mamba(32).state_dict())
    assert falcon.in_proj.weight.shape == (128, 32)
    biases = {n for n, _ in Mamba(32, proj_bias=True).named_parameters() if n.endswith("proj.bias")}
    assert biases == {"in_proj.bias", "out_proj.bias", "dt_proj.bias"}
    assert "conv1d.bias" not in Mamba(32, conv_bias=False).state_dict()


def test_first_step_sizes_are_log_uniform_and_rates_count_up() -> None:
    mixer = Mamba(512)
    dt = F.softplus(mixer.dt_proj.bias.detach().double())
    assert 0.99e-3 < float(dt.min()) < 1.1e-3
    assert 0.09 < float(dt.max()) < 0.101
    # Uniform in the logarithm: mean and variance of log10(dt) over (-3, -1) are -2 and 1/3.
    assert float(torch.log10(dt).mean()) == pytest.approx(-2, abs=0.08)
    assert float(torch.log10(dt).var()) == pytest.approx(1 / 3, abs=0.05)
    assert torch.equal(mixer.A_log[7], torch.log(torch.arange(1.0, 17)))
    assert torch.equal(mixer.D, torch.ones(1024))


def test_dt_multiplies_the_step_size_after_softplus() -> None:
    mixer = prepared(Mamba.example())
    x = tokens(mixer, 1, 5)
    dt = torch.tensor([[1.0, 0.5, 2.0, 1.0, 3.0]], dtype=torch.float64)
    xs, z = mixer.in_proj(x).chunk(2, -1)
    padded = F.pad(xs.transpose(1, 2), (3, 0))
    xs = F.silu(F.conv1d(padded, mixer.conv1d.weight, mixer.conv1d.bias, groups=16)).transpose(1, 2)
    low, B, C = mixer.x_proj(xs).split([1, 4, 4], -1)
    steps = F.softplus(low @ mixer.dt_proj.weight.T + mixer.dt_proj.bias) * dt[..., None]
    h = torch.zeros(16, 4, dtype=torch.float64)
    outputs = []
    for t in range(5):
        for e in range(16):
            h = h.clone()
            h[e] = (
                torch.exp(-steps[0, t, e] * mixer.A_log[e].exp()) * h[e]
                + steps[0, t, e] * B[0, t] * xs[0, t, e]
            )
        outputs.append((h @ C[0, t] + mixer.D * xs[0, t]) * F.silu(z[0, t]))
    expected = torch.stack(outputs) @ mixer.out_proj.weight.T
    torch.testing.assert_close(mixer(x, dt=dt)[0][0], expected, atol=1e-12, rtol=1e-10)


def test_rates_and_step_sizes_stay_in_float32_under_autocast() -> None:
    mixer = Mamba.example()
    x = tokens(mixer, 2, 5, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = mixer(x)
    assert state.h.dtype == torch.float32
    y.float().sum().backward()
    for parameter in (mixer.A_log, mixer.D, mixer.dt_proj.bias):
        assert parameter.dtype == parameter.grad.dtype == torch.float32


def test_slow_parameters_do_not_decay() -> None:
    mixer = Mamba.example()
    groups = mixer.parameter_groups()
    assert not any(group.decay for group in groups)
    slow = {id(p) for group in groups for p in group.parameters}
    assert slow == {id(mixer.A_log), id(mixer.D), id(mixer.dt_proj.bias)}


def test_impossible_step_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="Step sizes need 0 < low <= high"):
        Mamba(8, dt_min=0.1, dt_max=0.01)
    with pytest.raises(ValueError, match="at least one tap"):
        Mamba(8, taps=0)


def test_unknown_words_and_odd_groups_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="no norms 'layer'; expected one of none, learned, weightless"):
        Mamba(8, norms="layer")
    with pytest.raises(ValueError, match="no A_init 'legs'; expected one of s4d-real"):
        Mamba(8, A_init="legs")
    with pytest.raises(ValueError, match="groups must divide the channels of the recurrence; got 3 for 16"):
        Mamba(8, groups=3)


@pytest.mark.compiled
@pytest.mark.parametrize("name", ["jamba", "complex, constant B"])
def test_options_compile_whole(name: str) -> None:
    mixer = prepared(with_options(name), torch.float32)
    x = tokens(mixer, 2, 3, torch.float32)
    state = warm_state(mixer, 2, torch.float32)
    torch.compiler.reset()
    forward = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    step = torch.compile(mixer.step, fullgraph=True, backend="aot_eager")
    forward(x)[0].sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(forward(x, state)[0], mixer(x, state)[0])
        torch.testing.assert_close(step(x[:, 0], state)[0], mixer.step(x[:, 0], state)[0])
