"""Mamba-2: the whole-mixer fixture with its negative control, step size limits, group rules."""

import pytest
import torch
from test_mamba import wave

from hippodrome.layers.norm import GatedRMSNorm
from hippodrome.mixers.base import run_steps
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.testing.mixers import check_mixer, prepared, tokens

LAST = [-1.0130098, -1.0884606, -1.02191077, -0.82204242, -0.51493037, -0.14064048, 0.25199737, 0.61175963]


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


@pytest.mark.parametrize("run", [lambda m, x: m(x), run_steps], ids=["forward", "step"])
def test_whole_mixer_fixture(run) -> None:
    with torch.no_grad():
        y, _ = run(fixture(), wave((1, 6, 8), 0.21))
    torch.testing.assert_close(y[0, -1], torch.tensor(LAST, dtype=torch.float64), atol=1e-8, rtol=0)
    assert float(y.sum()) == pytest.approx(-15.79684924, abs=1e-8)


def test_fixture_tells_a_norm_without_groups_apart() -> None:
    mixer = fixture()
    mixer.norm = GatedRMSNorm(16, 1).double()
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
    check_mixer(limited)
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
    check_mixer(Mamba2(8, d_state=3, head_dim=2, groups=1, taps=1, expand=1))


def test_odd_counts_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"head_dim must divide expand \* d_model; got 5 for 16"):
        Mamba2(8, head_dim=5)
    with pytest.raises(ValueError, match="groups must divide the heads; got 3 for 4"):
        Mamba2(8, head_dim=4, groups=3)


def test_default_heads_fit_any_even_width() -> None:
    for width, head in ((768, 64), (72, 48), (100, 50)):
        assert Mamba2(width, d_state=2).matrix[0] == head
