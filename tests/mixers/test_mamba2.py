"""Mamba-2: the whole-mixer fixture with its negative control, step size limits, group rules."""

from functools import partial

import pytest
import torch
from test_mamba import wave
from torch.nn.functional import rms_norm, silu, softplus

from hippodrome.mixers._matrix_state import State
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.ops.ssd import BACKENDS, ssd_packed
from hippodrome.testing.mixers import (
    EPS,
    assert_equal,
    check_advance,
    check_autocast,
    check_forward,
    check_mixer,
    check_resets,
    check_state,
    check_state_dict,
    prepared,
    tokens,
    warm_state,
)
from hippodrome.testing.triton_ import device

LAST = [-1.0130098, -1.0884606, -1.02191077, -0.82204242, -0.51493037, -0.14064048, 0.25199737, 0.61175963]


OPTIONS = {
    "gated channels beside": {"d_inner": 20, "d_ssm": 12, "proj_bias": True, "conv_bias": False},
    "no norm, D of channels": {"norm": False, "D_per_channel": True},
    "norm before the gate": {"norm_before_gate": True, "groups": 4, "norm_groups": 2, "norm_eps": 1e-3},
    "learned start": {"learn_init": True, "groups": 2, "dt_high": 0.05},
    "all": {"d_ssm": 8, "norm_groups": 1, "D_per_channel": True, "learn_init": True, "groups": 2},
}


def with_options(name: str) -> Mamba2:
    return Mamba2(8, d_state=3, head_dim=4, chunk=4, **OPTIONS[name])


def fixture() -> Mamba2:
    mixer = Mamba2(8, d_state=4, head_dim=4, groups=2).double()
    phases = {"in_proj.weight": 1, "conv1d.weight": 2, "conv1d.bias": 3, "out_proj.weight": 6}
    with torch.no_grad():
        for name, phase in phases.items():
            parameter = mixer.get_parameter(name)
            parameter.copy_(0.5 * wave(parameter.shape, 0.37, phase))
        mixer.A_log.copy_(torch.log(torch.arange(1.0, 5, dtype=torch.float64)))
        mixer.D.fill_(1.0)
        mixer.dt_bias.fill_(-2.0)
    return mixer


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("backend", [x.NAME for x in BACKENDS if x.NAME != "triton"])
def test_whole_mixer_fixture(backend, chunk, monkeypatch) -> None:
    monkeypatch.setattr("hippodrome.mixers.mamba2.ssd_packed", partial(ssd_packed, backend=backend))
    mixer, x = fixture(), wave((1, 6, 8), 0.21)
    mixer.chunk = chunk
    with torch.no_grad():
        state = mixer.init_state(1)
        found = [
            mixer(x)[0],
            run_steps(mixer, x)[0],
            torch.stack([mixer.advance_(x[:, t], state) for t in range(6)], 1),
            torch.cat([(first := mixer(x[:, :4]))[0], mixer(x[:, 4:], first[1])[0]], 1),
        ]
    for y in found:
        torch.testing.assert_close(y[0, -1], torch.tensor(LAST, dtype=torch.float64), atol=1e-8, rtol=0)
        assert float(y.sum()) == pytest.approx(-15.79684924, abs=1e-8)


@pytest.mark.triton
@pytest.mark.skipif(device() is None, reason="Triton has neither a GPU here nor its interpreter turned on")
@pytest.mark.parametrize("chunk", [2, 4])
def test_whole_mixer_fixture_in_triton(chunk, monkeypatch) -> None:
    monkeypatch.setattr("hippodrome.mixers.mamba2.ssd_packed", partial(ssd_packed, backend="triton"))
    mixer = fixture().to(device())
    mixer.chunk = chunk
    with torch.no_grad():
        y = mixer(wave((1, 6, 8), 0.21).to(device()))[0].cpu()
    torch.testing.assert_close(y[0, -1], torch.tensor(LAST, dtype=torch.float64), atol=1e-8, rtol=0)


def test_a_learned_state_made_with_gradients_may_be_advanced_without() -> None:
    mixer = prepared(with_options("learned start"))
    x = tokens(mixer, 2, 6)
    state = mixer.init_state(2)
    assert state.S.requires_grad
    with torch.no_grad():
        y = torch.stack([mixer.advance_(x[:, t], state) for t in range(6)], 1)
    assert_equal(y, mixer(x)[0], "advance_ from a state with a gradient")


def test_fixture_tells_a_norm_without_groups_apart() -> None:
    mixer = Mamba2(8, d_state=4, head_dim=4, groups=2, norm_groups=1).double()
    mixer.load_state_dict(fixture().state_dict())
    with torch.no_grad():
        y, _ = mixer(wave((1, 6, 8), 0.21))
    assert float(y[0, -1, 0]) == pytest.approx(-1.19006945, abs=1e-8)


def test_names_and_shapes_are_those_of_the_checkpoints() -> None:
    shapes = {name: tuple(p.shape) for name, p in Mamba2(64, d_state=16).named_parameters()}
    assert shapes == {
        "in_proj.weight": (2 * 128 + 2 * 16 + 2, 64),
        "conv1d.weight": (128 + 32, 1, 4),
        "conv1d.bias": (128 + 32,),
        "dt_bias": (2,),
        "A_log": (2,),
        "D": (2,),
        "norm.weight": (128,),
        "out_proj.weight": (64, 128),
    }


def test_step_size_limits_act_in_both_forms() -> None:
    limited = Mamba2(8, d_state=4, head_dim=4, dt_low=0.01, dt_high=0.05)
    with torch.no_grad():
        # Step sizes below, within and above the limits.
        limited.dt_bias.copy_(torch.tensor([0.001, 0.02, 0.03, 0.4]).expm1().log())
    check_mixer(limited, batch=2, length=6)
    free = Mamba2(8, d_state=4, head_dim=4)
    free.load_state_dict(limited.state_dict())
    free, limited = prepared(free), prepared(limited)
    x = tokens(free, 2, 6)
    assert not torch.allclose(limited(x)[0], free(x)[0], rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 5, 64])
def test_the_chunk_changes_nothing(chunk: int) -> None:
    mixer = prepared(Mamba2.example())
    x = tokens(mixer, 2, 11)
    expected, _ = mixer(x)
    mixer.chunk = chunk
    torch.testing.assert_close(mixer(x)[0], expected, atol=1e-12, rtol=1e-10)


def test_one_group_and_taps() -> None:
    check_mixer(Mamba2(8, d_state=3, head_dim=2, groups=1, taps=1, expand=1), length=6)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_keeps_the_contract(name: str) -> None:
    mixer = with_options(name)
    if mixer.init_states is None:
        check_mixer(mixer, batch=2, length=6)
        return
    # Where a state is handed in, the learned one has no part and no gradient: held apart below.
    for check in (check_state, check_state_dict, check_autocast):
        check(mixer)
    check_advance(mixer, 9)
    for dtype in EPS:
        check_forward(mixer, 9, splits=(1, 4, 5), dtype=dtype)
    check_forward(mixer, 9, splits=(4,), with_dt=True)
    check_resets(mixer, 9, [[], [0], [2, 3, 8]])


@pytest.mark.parametrize("start", ["none", "own", "warm"])
@pytest.mark.parametrize("name", ["learned start", "all"])
def test_the_learned_state_gets_the_gradient_of_repeated_steps(name: str, start: str) -> None:
    mixer = prepared(with_options(name))
    x = tokens(mixer, 3, 11)
    warm = warm_state(mixer, 3)
    resets = torch.zeros(3, 11, dtype=torch.bool)
    resets[0, [0, 5]] = resets[1, [3, 4, 10]] = True
    weights = tokens(mixer, 3, 11, seed=4)
    found = []
    for run in (mixer, partial(run_steps, mixer)):
        leaves = [z.clone().requires_grad_() for z in (x, *warm)]
        state = {"none": None, "own": mixer.init_state(3), "warm": State(*leaves[1:])}[start]
        y, last = run(leaves[0], state, resets=resets)
        loss = (y * weights).sum() + last.S.square().sum() + last.window.square().sum()
        wanted = [*mixer.parameters(), *leaves[: 3 if start == "warm" else 1]]
        found.append(torch.autograd.grad(loss, wanted))
    assert (found[1][[n for n, _ in mixer.named_parameters()].index("init_states")] != 0).all()
    for actual, expected in zip(*found, strict=True):
        assert_equal(actual, expected, "gradient", 1e-8)


def test_gradients_agree_with_finite_differences() -> None:
    mixer = prepared(with_options("all"))
    mixer.requires_grad_(False)
    x, resets = tokens(mixer, 2, 5), torch.zeros(2, 5, dtype=torch.bool)
    resets[0, 2] = True
    names = ("init_states", "A_log", "dt_bias", "D")
    leaves = [z.detach().clone().requires_grad_() for z in (x, *(mixer.get_parameter(n) for n in names))]

    def run(x, *values):
        named = dict(zip(names, values, strict=True))
        y, last = torch.func.functional_call(mixer, named, (x,), {"resets": resets})
        return y, *last

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_a_learned_state_starts_at_zero_and_is_forgotten_as_the_heads_decay() -> None:
    mixer = Mamba2(8, d_state=3, head_dim=4, learn_init=True)
    assert mixer.init_states.shape == (4, 4, 3)
    assert not mixer.init_states.any()
    free = [p for group in mixer.parameter_groups() if not group.decay for p in group.parameters]
    assert any(p is mixer.init_states for p in free)
    mixer, plain = prepared(mixer), prepared(Mamba2(8, d_state=3, head_dim=4))
    plain.load_state_dict(mixer.state_dict(), strict=False)
    x = tokens(mixer, 1, 6)
    sizes = softplus(mixer.in_proj(x)[0, :, -4:] + mixer.dt_bias)
    left = torch.exp(-(sizes * mixer.A_log.exp()).sum(0))[:, None, None] * mixer.init_states
    torch.testing.assert_close(mixer(x)[1].S[0] - plain(x)[1].S[0], left, atol=1e-12, rtol=1e-9)


def test_channels_beside_the_recurrence_are_a_gated_perceptron() -> None:
    mixer = prepared(Mamba2(8, d_state=3, head_dim=4, d_inner=20, d_ssm=12))
    alone = prepared(Mamba2(8, d_state=3, head_dim=4, d_inner=12))
    assert mixer.in_proj.weight.shape == (2 * 20 + 2 * 3 + 3, 8)
    assert mixer.out_proj.weight.shape == (8, 20)
    cut = {n: p.detach().clone() for n, p in mixer.state_dict().items()}
    z0, x0, cut["in_proj.weight"] = cut["in_proj.weight"].split([8, 8, 33])
    beside, cut["out_proj.weight"] = cut["out_proj.weight"].split([8, 12], 1)
    alone.load_state_dict(cut)
    x = tokens(mixer, 2, 5)
    expected = alone(x)[0] + (silu(x @ z0.T) * (x @ x0.T)) @ beside.T
    torch.testing.assert_close(mixer(x)[0], expected, atol=1e-12, rtol=1e-9)


def test_factors_of_what_in_proj_gives_are_those_of_its_rows() -> None:
    factors = [0.5, 2.0, 0.25, 3.0, 1.5]
    mixer = prepared(Mamba2(8, d_state=3, head_dim=4, groups=2, chunk=4, in_scales=factors))
    plain = prepared(Mamba2(8, d_state=3, head_dim=4, groups=2, chunk=4))
    plain.load_state_dict(mixer.state_dict())
    sizes = [16, 16, 6, 6, 4]  # of z, x, B, C and the step sizes
    with torch.no_grad():
        for rows, factor in zip(plain.in_proj.weight.split(sizes), factors, strict=True):
            rows.mul_(factor)
        x = tokens(mixer, 2, 7)
        torch.testing.assert_close(mixer(x)[0], plain(x)[0], rtol=1e-12, atol=1e-12)
        state, own = mixer.init_state(2), mixer.init_state(2)
        torch.testing.assert_close(mixer.step(x[:, 0], state)[0], plain(x)[0][:, 0])
        torch.testing.assert_close(mixer.advance_(x[:, 0], own), plain(x)[0][:, 0])
    with pytest.raises(ValueError, match="five factors, for z, x, B, C and dt; got 4"):
        Mamba2(8, in_scales=factors[1:])


def test_without_a_norm_and_with_one_before_the_gate() -> None:
    x = tokens(Mamba2.example(), 2, 5)
    read = []
    for options in ({"norm": False}, {"norm_before_gate": True, "norm_groups": 2, "norm_eps": 0.1}):
        mixer = prepared(Mamba2(8, d_state=3, head_dim=4, **options))
        for parameter in mixer.parameters():
            torch.nn.init.uniform_(parameter, 0.1, 0.4, generator=torch.Generator().manual_seed(1))
        inner, side = mixer.project(x)
        y, _ = mixer.scan(mixer.drive(mixer.conv(inner, None, None)[0], side, None), None, None)
        y, z = y.flatten(-2), silu(side.z)
        if mixer.norm is not None:
            y = rms_norm(y.unflatten(-1, (2, 8)), (8,), eps=0.1).flatten(-2) * mixer.norm.weight
        torch.testing.assert_close(mixer(x)[0], (y * z) @ mixer.out_proj.weight.T, atol=1e-12, rtol=1e-9)
        read.append(mixer(x)[0])
    assert not torch.allclose(*read)


@pytest.mark.parametrize("name", ["gated channels beside", "all"])
@torch.no_grad()
def test_heads_read_their_channels_by_their_hidden_attention(name: str) -> None:
    mixer = prepared(with_options(name))
    x, resets = tokens(mixer, 2, 7), torch.zeros(2, 7, dtype=torch.bool)
    resets[1, 4] = True
    drive = mixer._driven(x, resets)
    M, logs = mixer.hidden_attention(x, resets), mixer.log_decays(x)
    assert M.shape == (2, mixer.heads, 7, 7)
    assert not M.triu(1).any()
    assert not M[1, :, 4:, :4].any()
    zeros = torch.zeros(2, mixer.heads, *mixer.matrix, dtype=torch.float64)
    values = drive.xBC[..., : mixer.parts[0]].unflatten(-1, (mixer.heads, -1))
    if mixer.init_states is not None:
        mixer.init_states.zero_()
    y, _ = mixer.scan(drive, zeros, resets)
    skip = mixer._skip() * values
    torch.testing.assert_close(torch.einsum("bhij,bjhp->bihp", M, values) + skip, y, rtol=1e-9, atol=1e-12)
    drive = mixer._driven(x, None)
    left = mixer.scan(drive, zeros + 1, None)[1] - mixer.scan(drive, zeros, None)[1]
    torch.testing.assert_close(left, torch.exp(logs.sum(1))[..., None, None].expand_as(left))


def test_options_name_their_parameters_as_checkpoints_do() -> None:
    plain = set(Mamba2(8, head_dim=4).state_dict())
    assert set(Mamba2(8, head_dim=4, norm=False).state_dict()) == plain - {"norm.weight"}
    assert set(Mamba2(8, head_dim=4, conv_bias=False).state_dict()) == plain - {"conv1d.bias"}
    assert set(Mamba2(8, head_dim=4, proj_bias=True).state_dict()) == plain | {
        "in_proj.bias",
        "out_proj.bias",
    }
    assert set(Mamba2(8, head_dim=4, learn_init=True).state_dict()) == plain | {"init_states"}
    assert Mamba2(8, head_dim=4, D_per_channel=True).D.shape == (16,)


def test_odd_counts_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"head_dim must divide expand \* d_model; got 5 for 16"):
        Mamba2(8, head_dim=5)
    with pytest.raises(ValueError, match="groups must divide the heads; got 3 for 4"):
        Mamba2(8, head_dim=4, groups=3)
    with pytest.raises(ValueError, match="at least 1 and at most d_inner = 16; got 24"):
        Mamba2(8, d_ssm=24)
    with pytest.raises(ValueError, match="must divide its channels; got 3 groups for 16"):
        Mamba2(8, head_dim=4, norm_groups=3)
    with pytest.raises(ValueError, match="head_dim must divide the channels of the recurrence; got 5 for 12"):
        Mamba2(8, d_ssm=12, head_dim=5)


def test_default_heads_fit_any_even_width() -> None:
    for width, head in ((768, 64), (72, 48), (100, 50)):
        assert Mamba2(width, d_state=2).matrix[0] == head


@pytest.mark.compiled
def test_options_compile_whole() -> None:
    mixer = prepared(with_options("all"), torch.float32)
    x = tokens(mixer, 2, 3, torch.float32)
    resets = torch.tensor([[False, False, False], [False, True, False]])
    torch.compiler.reset()
    forward = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    step = torch.compile(mixer.step, fullgraph=True, backend="aot_eager")
    y, state = forward(x, resets=resets)
    y.sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(y, mixer(x, resets=resets)[0])
        torch.testing.assert_close(step(x[:, 0], state)[0], mixer.step(x[:, 0], state)[0])
