"""Variates as tokens, one time at a time; attention over all tokens; norms behind the residuals."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from hippodrome import config
from hippodrome.backbones.block import Block
from hippodrome.backbones.full_attention import FullAttention
from hippodrome.backbones.inverted import Inverted
from hippodrome.backbones.stack import Stack
from hippodrome.layers.mlp import GatedMLP
from hippodrome.mixers.min_gru import MinGRU
from hippodrome.models.base import accepts_dt
from hippodrome.models.forecasting import ForecastingModel
from hippodrome.testing.mixers import check_noncausal

PATTERNS = ["inverted:full_attention+mlp", "inverted:bimamba", "inverted:min_gru"]


def made(pattern: str, variates: int = 3) -> nn.Module:
    torch.manual_seed(0)
    options = {"inverted": {"variates": variates}}
    if "bimamba" in pattern:
        options["bimamba"] = {"d_state": 2, "taps": 2, "expand": 1, "tied": False}
    spec = config.stack_spec(pattern, 4, 2, options=options, norm="layer", post_norm=True)
    return config.build(spec, "backbones").double().eval()


def values(rows: int = 6, t: int = 5) -> Tensor:
    return torch.randn(rows, t, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_time_is_a_row_over_the_variates_of_one_series(pattern: str) -> None:
    model, x = made(pattern), values()
    y, state = model(x)
    for series in range(2):
        for time in range(5):
            rows = slice(3 * series, 3 * series + 3)
            alone, _ = model.stack(x[rows, time][None])
            torch.testing.assert_close(y[rows, time], alone[0], rtol=1e-10, atol=1e-12)
    assert state == ()
    for first, end in pairwise([0, 1, 3, 5]):
        torch.testing.assert_close(model(x[:, first:end], state)[0], y[:, first:end], rtol=1e-10, atol=1e-12)
    marks = torch.rand(6) < 0.5
    torch.testing.assert_close(model.step(x[:, 2], model.reset_rows(state, marks))[0], y[:, 2])
    torch.testing.assert_close(model.advance_(x[:, 2], model.init_state(6, 5)), y[:, 2])
    resets = torch.rand(6, 5) < 0.5
    torch.testing.assert_close(model(x, resets=resets)[0], y, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_rows_that_the_last_series_lacks_are_zeros() -> None:
    model, x = made("inverted:bimamba"), values(5)
    filled = torch.cat([x, torch.zeros_like(x[:1])])
    torch.testing.assert_close(model(x)[0], model(filled)[0][:5], rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_attention_knows_no_order_of_variates_and_mamba_turns_with_its_directions() -> None:
    model, x = made("inverted:full_attention+mlp"), values(3)
    torch.testing.assert_close(model(x[[2, 0, 1]])[0], model(x)[0][[2, 0, 1]], rtol=1e-10, atol=1e-12)
    model = made("inverted:bimamba")
    y = model(x)[0]
    for block in model.stack.blocks:
        ahead = {k: v.clone() for k, v in block.mixer.mamba_fwd.state_dict().items()}
        block.mixer.mamba_fwd.load_state_dict(block.mixer.mamba_rev.state_dict())
        block.mixer.mamba_rev.load_state_dict(ahead)
    torch.testing.assert_close(model(x.flip(0))[0].flip(0), y, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_a_forecaster_reads_whole_windows_and_streams_patches_through_it() -> None:
    for patch, stride in ((None, None), (4, 2)):
        model = ForecastingModel(
            made(PATTERNS[0], 2).float(), 2, look_back=11, horizon=5, patch=patch, stride=stride
        )
        assert (model.patch, model.stride, model.patches) == ((11, 1, 1) if patch is None else (4, 2, 5))
        past = torch.randn(3, 15, 2)
        whole, _ = model(past)
        _, state = model(past[:, :11])
        torch.testing.assert_close(model(past[:, 11:], state)[0], whole)
        with pytest.raises(ValueError, match="Give it variates=3"):
            ForecastingModel(made(PATTERNS[0], 2), 3, look_back=11, horizon=5)


def test_what_cannot_be_meant_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="variates=7"):
        config.stack_spec("inverted:mamba", 4, 1)
    with pytest.raises(ValueError, match="takes one pattern"):
        config.stack_spec("inverted:mamba:mamba", 4, options={"inverted": {"variates": 2}})
    with pytest.raises(ValueError, match="takes no dt"):
        made("inverted:min_gru")(values(), dt=torch.ones(6, 5))
    assert not accepts_dt(made("inverted:bimamba"))
    with pytest.raises(ValueError, match="one variate or more"):
        Inverted(Stack([Block(MinGRU(4))]), 0)
    with pytest.raises(ValueError, match="leave post_norm out"):
        config.stack_spec("tsm2:mamba", 4, options={"tsm2": {"variates": 2}}, post_norm=True)
    with pytest.raises(ValueError, match="or rope=False"):
        FullAttention(6, heads=2, rope=True)
    with pytest.raises(ValueError, match="heads must divide"):
        FullAttention(6, heads=4)


@pytest.mark.parametrize("rope", [False, True])
def test_full_attention_keeps_the_contract_of_what_reads_both_ways(rope: bool) -> None:
    check_noncausal(FullAttention(8, heads=2, rope=rope), 9)


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_full_attention_is_the_layer_of_pytorch(bias: bool) -> None:
    ours = FullAttention(12, heads=3, bias=bias).double()
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True, dtype=torch.float64)
    theirs.in_proj_weight.copy_(ours.in_proj.weight)
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
    if bias:
        ours.in_proj.bias.normal_()
        theirs.in_proj_bias.copy_(ours.in_proj.bias)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    y, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x)[0], y, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(ours.hidden_attention(x), weights, rtol=1e-11, atol=1e-13)
    resets = torch.zeros(2, 7, dtype=torch.bool)
    resets[0, 3] = resets[1, 5] = True
    seen = ours.hidden_attention(x, resets)
    assert bool((seen[0, :, :3, 3:] == 0).all())
    torch.testing.assert_close(seen[1, :, 5:, 5:], ours.hidden_attention(x[1:, 5:])[0])


@torch.no_grad()
def test_turned_scores_depend_on_distances_alone() -> None:
    mixer = FullAttention(8, heads=2, rope=True).double()
    seen = mixer.hidden_attention(torch.randn(1, 1, 8, dtype=torch.float64).expand(1, 9, 8)).log()[0]
    slope = seen - seen.diagonal(dim1=1, dim2=2)[..., None]
    torch.testing.assert_close(slope[:, 1, 3], slope[:, 5, 7], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(slope[:, 1, 3], slope[:, 1, 4])


@torch.no_grad()
def test_norms_may_stand_behind_the_residuals() -> None:
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    block = Block(MinGRU(8), GatedMLP(8), norm="layer", post_norm=True).double().eval()
    block.norm.weight.uniform_(0.5, 1.5)
    middle = block.norm(x + block.mixer(x)[0])
    expected = block.mlp_norm(middle + block.mlp(middle))
    torch.testing.assert_close(block(x)[0], expected)
    torch.testing.assert_close(block.step(x[:, 0], block.init_state(2))[0], expected[:, 0])
    torch.testing.assert_close(block.advance_(x[:, 0], block.init_state(2)), expected[:, 0])


def test_a_stack_of_them_starts_with_the_weights_of_its_layers() -> None:
    layer = FullAttention(8, heads=2)
    first = layer.out_proj.weight.detach().clone()
    Stack([Block(layer, post_norm=True), Block(FullAttention(8, heads=2), post_norm=True)])
    torch.testing.assert_close(layer.out_proj.weight, first)
    Stack([Block(layer), Block(FullAttention(8, heads=2))])
    torch.testing.assert_close(layer.out_proj.weight, first / 2**0.5)
    spec = config.stack_spec("gru", 8, 2)
    assert all("post_norm" not in block for block in spec["blocks"])
