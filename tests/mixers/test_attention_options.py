"""Attention's heads of any size, biases, partly turned heads and scores of another scale, written out."""

import pytest
import torch
from torch import Tensor

from hippodrome.mixers import _attention as engine
from hippodrome.mixers.attention import Attention
from hippodrome.testing.mixers import check_forward, check_mixer, prepared, tokens

VARIANTS = {
    "heads wider than the layer": {"heads": 2, "kv_heads": 1, "head_dim": 6},
    "half of each head turned": {"heads": 2, "rope_share": 0.5, "bias": True},
    "own scale": {"heads": 2, "scale": 0.7, "window": 3},
    "heads side by side": {"heads": 2, "mixed": False, "rope": False},
}


def oracle(mixer: Attention, x: Tensor) -> Tensor:
    """One row (t, d), one head and query after the other."""
    t, size, kv = x.shape[0], mixer.size, mixer.kv_heads
    bias = 0.0 if mixer.in_proj.bias is None else mixer.in_proj.bias
    q, k, v = (
        part.view(t, -1, size)
        for part in (x @ mixer.in_proj.weight.T + bias).split([mixer.heads * size, kv * size, kv * size], -1)
    )
    if mixer.rope:
        share = int(size * mixer.turned / size)
        at = torch.arange(t)[None]
        q, k = (torch.cat([engine.rotate(m[None, ..., :share], at)[0], m[..., share:]], -1) for m in (q, k))
    scale = size**-0.5 if mixer.scale is None else mixer.scale
    y = torch.zeros(t, mixer.heads, size, dtype=x.dtype)
    for i in range(t):
        first = 0 if mixer.window is None else max(0, i - mixer.window + 1)
        for h in range(mixer.heads):
            own = h * kv // mixer.heads
            y[i, h] = torch.softmax(scale * (k[first : i + 1, own] @ q[i, h]), 0) @ v[first : i + 1, own]
    return mixer.out_proj(y.flatten(1))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_against_softmax_written_out(options: dict) -> None:
    mixer = prepared(Attention(8, **options))
    x = tokens(mixer, 2, 9)
    for row, y in zip(x, mixer(x)[0], strict=True):
        torch.testing.assert_close(y, oracle(mixer, row), atol=1e-12, rtol=1e-10)
    check_forward(mixer, 9, splits=[2, 5])


def test_all_options_together_keep_the_contract() -> None:
    mixer = Attention(8, heads=4, kv_heads=2, head_dim=4, rope_share=0.5, scale=0.4, bias=True)
    check_mixer(mixer, batch=2, length=6)


def test_shapes_of_published_layers() -> None:
    layer = Attention(12, heads=4, kv_heads=2, head_dim=8, bias=True)
    assert layer.in_proj.weight.shape == (32 + 2 * 16, 12)
    assert layer.out_proj.weight.shape == (12, 32)
    assert layer.in_proj.bias.shape == (64,)
    assert Attention(10, heads=3, head_dim=4).size == 4
    gemma = Attention(12, heads=3, out_bias=True)
    assert gemma.in_proj.bias is None
    assert gemma.out_proj.bias.shape == (12,)
    assert Attention(12, heads=3, bias=True, out_bias=False).out_proj.bias is None
    assert Attention(12, head_dim=4).heads == 3


def test_without_positions_the_order_of_the_past_does_not_matter() -> None:
    """Tokens before the last may be exchanged; with positions they may not."""
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    moved = torch.cat([x[:, order], x[:, 8:]], 1)
    for rope in (False, True):
        mixer = prepared(Attention(8, heads=4, kv_heads=2, rope=rope))
        difference = (mixer(moved)[0][:, -1] - mixer(x)[0][:, -1]).abs().max()
        assert bool(difference < 1e-12) is not rope
        # The cache is of the past alone, in whatever order it came.
        state = mixer(moved[:, :8])[1]
        y, _ = mixer.step(moved[:, 8], state)
        torch.testing.assert_close(y, mixer(moved)[0][:, -1])


def test_what_cannot_be_is_told() -> None:
    for given, said in (
        ({"heads": 3}, "heads must divide d_model; got 3 for 8"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads must divide heads; got 3 for 4"),
        ({"heads": 0, "head_dim": 4}, "one head of one channel at least"),
        ({"heads": 2, "head_dim": 3}, "must be even; got 8 channels in 2 heads, 3 each"),
        ({"heads": 2, "rope_share": 0.25}, "1 each"),
        ({"heads": 2, "rope_share": 0.1}, "0 each"),
        ({"heads": 2, "rope_share": 1.5}, "at most 1; got 1.5"),
        ({"heads": 2, "head_dim": 6, "mixed": False}, "make up d_model; got 2 of 6"),
    ):
        with pytest.raises(ValueError, match=said):
            Attention(8, **given)
