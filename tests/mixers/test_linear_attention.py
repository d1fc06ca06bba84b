"""Linear attention against the masked matrix of its features."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.linear_attention import LinearAttention
from hippodrome.testing.mixers import (
    check_forward,
    check_gradients,
    check_mixer,
    check_resets,
    prepared,
    tokens,
)


@pytest.mark.parametrize("features", ["elu", "relu"])
def test_normalized_it_is_attention_with_a_kernel(features: str) -> None:
    mixer = prepared(LinearAttention(8, heads=2, features=features))
    x = tokens(mixer, 1, 9)[0]
    q, k, v = (m.unflatten(-1, (2, 4)).transpose(0, 1) for m in mixer.in_proj(x).chunk(3, -1))
    q, k = (F.elu(m) + 1 if features == "elu" else m.clamp(min=0) for m in (q, k))
    weights = (q @ k.mT).tril()
    o = (weights / (weights.sum(-1, keepdim=True) + 1e-6)) @ v
    expected = mixer.out_proj(o.transpose(0, 1).flatten(1))
    torch.testing.assert_close(mixer(x[None])[0][0], expected, atol=1e-12, rtol=1e-9)


def test_without_normalizer_a_norm_stands_in_its_place() -> None:
    mixer = prepared(LinearAttention(8, heads=2, features="identity", normalize=False))
    x = tokens(mixer, 1, 9)[0]
    q, k, v = (m.unflatten(-1, (2, 4)).transpose(0, 1) for m in mixer.in_proj(x).chunk(3, -1))
    o = (q @ k.mT / 2).tril() @ v
    o = mixer.norm.weight * o / torch.sqrt((o**2).mean(-1, keepdim=True) + 1e-5)
    expected = mixer.out_proj(o.transpose(0, 1).flatten(1))
    torch.testing.assert_close(mixer(x[None])[0][0], expected, atol=1e-12, rtol=1e-9)


def test_without_normalizer_it_keeps_the_contract() -> None:
    check_mixer(LinearAttention(8, heads=2, normalize=False), batch=2, length=6)


def test_a_normalizer_that_may_vanish_is_the_same_in_both_forms() -> None:
    """Features of relu may all be zero, so that little is divided by little: in float64 alone."""
    mixer = LinearAttention(8, heads=2, features="relu")
    check_forward(mixer, 7, splits=(1, 5))
    check_resets(mixer, 7, [[0], [2, 3, 6]])
    check_gradients(mixer, 5)


def test_values_that_agree_are_read_back() -> None:
    """A weighted mean of equal values is that value, whatever the weights."""
    mixer = prepared(LinearAttention(8, heads=2))
    with torch.no_grad():
        mixer.in_proj.weight[16:].zero_()
    x = tokens(mixer, 2, 5)
    assert torch.equal(mixer(x)[0], torch.zeros_like(x))


def test_what_cannot_be_meant_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="heads must divide d_model; got 3 for 8"):
        LinearAttention(8, heads=3)
    with pytest.raises(ValueError, match=r"no feature map 'softmax'; expected one of elu, relu, identity\."):
        LinearAttention(8, features="softmax")
    with pytest.raises(ValueError, match=r"not be negative; features='identity' may be.*normalize=False"):
        LinearAttention(8, features="identity")
