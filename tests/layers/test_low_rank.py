"""A correction of low rank is the map with another weight, in every form of every mixer."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hippodrome.layers.definite_projection import DefiniteProjection
from hippodrome.layers.low_rank import LowRank
from hippodrome.layers.projection import Projection
from hippodrome.mixers.attention import Attention
from hippodrome.mixers.base import Mixer
from hippodrome.mixers.mamba import Mamba
from hippodrome.mixers.mamba2 import Mamba2
from hippodrome.mixers.mixture_of_mamba import MixtureOfMamba
from hippodrome.train import low_rank
from hippodrome.train.settings import LowRankSettings


def test_is_the_map_with_another_weight() -> None:
    torch.manual_seed(0)
    base = Projection(7, 5, bias=True).double()
    before = base.weight.detach().clone()
    wrapped = LowRank(base, 3, alpha=6.0)
    x = torch.randn(2, 4, 7, dtype=torch.float64)
    assert torch.equal(wrapped(x), base(x)), "nothing changes at first"
    with torch.no_grad():
        wrapped.up.normal_()
    whole = before + 2.0 * wrapped.up @ wrapped.down
    expected = x @ whole.T + base.bias
    assert (wrapped(x) - expected).abs().max() <= 1e-12
    assert (wrapped.weight - whole).abs().max() <= 1e-12
    assert wrapped.bias is base.bias
    assert torch.equal(base.weight, before)
    assert wrapped.merged() is base
    assert (base(x) - expected).abs().max() <= 1e-12


def test_only_the_correction_learns() -> None:
    torch.manual_seed(0)
    wrapped = LowRank(Projection(6, 4, bias=True), 2)
    wrapped(torch.randn(3, 6)).square().sum().backward()
    assert {name for name, p in wrapped.named_parameters() if p.requires_grad} == {"down", "up"}
    assert wrapped.base.weight.grad is None
    assert wrapped.base.bias.grad is None
    assert wrapped.up.grad is not None
    assert wrapped.up.grad.abs().min() > 0
    assert wrapped.down.grad is not None
    assert not wrapped.down.grad.any(), "B is zero at first, so A has no gradient yet"


def test_half_precision_keeps_the_correction_in_float32() -> None:
    torch.manual_seed(0)
    base = Projection(64, 64, bias=False).bfloat16()
    wrapped = LowRank(base, 4)
    assert wrapped.down.dtype == wrapped.up.dtype == torch.float32
    with torch.no_grad():
        wrapped.up.normal_()
    x = torch.randn(5, 64).bfloat16()
    y = wrapped(x)
    assert y.dtype == torch.bfloat16
    exact = x.double() @ (base.weight.double() + wrapped.up.double() @ wrapped.down.double()).T
    assert (y.double() - exact).abs().max() <= 2e-2 * exact.abs().max()


@pytest.mark.parametrize("rank", [0, -1, 5])
def test_a_rank_that_the_map_does_not_have_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank 1 to 4; got {rank}"):
        LowRank(Projection(6, 4), rank)


def test_a_map_with_tied_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="tied"):
        LowRank(DefiniteProjection(8, 2, 3, "positive"), 2)


def mamba() -> Mixer:
    return Mamba(8, d_state=4, dt_rank=3)


def mamba2() -> Mixer:
    return Mamba2(8, d_state=4, head_dim=4)


def attention() -> Mixer:
    return Attention(8, heads=4, kv_heads=2)


def modal() -> Mixer:
    return MixtureOfMamba(8, modalities=2, d_state=4)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("make", "on"),
    [
        (mamba, ("in_proj", "out_proj", "x_proj", "dt_proj")),
        (mamba2, ("in_proj", "out_proj")),
        (attention, ("in_proj", "out_proj")),
        (modal, ("in_proj", "out_proj")),
    ],
    ids=["mamba", "mamba2", "attention", "mixture_of_mamba"],
)
def test_no_form_of_a_mixer_ignores_the_correction(
    make: Callable[[], Mixer], on: tuple[str, ...], kind: torch.dtype
) -> None:
    """What wraps ``out_proj`` is ignored by fused paths elsewhere (peft, issue 2274): here in none."""
    torch.manual_seed(0)
    mixer, merged, untouched = make().to(kind), make().to(kind), make().to(kind)
    for other in (merged, untouched):
        other.load_state_dict(mixer.state_dict())
    names = low_rank.insert(mixer, LowRankSettings(rank=2, alpha=3.0, on=on))
    assert len(names) >= len(on)
    for name in names:
        wrapped, plain = mixer.get_submodule(name), merged.get_submodule(name)
        assert isinstance(wrapped, LowRank)
        assert isinstance(plain, nn.Linear)
        with torch.no_grad():
            wrapped.up.normal_()
            plain.weight += 1.5 * wrapped.up @ wrapped.down
    x = torch.randn(2, 9, 8, dtype=kind)
    eps = 1e-9 if kind == torch.float64 else 1e-5

    def close(y: torch.Tensor, expected: torch.Tensor) -> bool:
        return bool((y - expected).abs().max() <= eps * expected.abs().max().clamp(min=1.0))

    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            expected, _ = merged(x)
            assert close(mixer(x)[0], expected)
            assert not torch.allclose(untouched(x)[0], expected, atol=1e-3)
            state, owned = mixer.init_state(2, 9), mixer.init_state(2, 9)
            for t in range(9):
                y_t, state = mixer.step(x[:, t], state)
                assert close(y_t, expected[:, t])
                if not gradients:
                    assert close(mixer.advance_(x[:, t], owned), expected[:, t])
    low_rank.merge(mixer)
    assert mixer.state_dict().keys() == merged.state_dict().keys()
    assert close(mixer(x)[0], merged(x)[0])
