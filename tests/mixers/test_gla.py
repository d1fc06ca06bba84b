"""Gated linear attention against outer products written out."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.gla import GatedLinearAttention
from hippodrome.testing.mixers import check_forward, prepared, tokens


def test_against_explicit_outer_products() -> None:
    mixer = prepared(GatedLinearAttention(8, heads=2, gate_rank=3))
    x = tokens(mixer, 1, 7)[0]
    weights = mixer.in_proj.weight.split([4, 4, 8, 8, 3])
    q, k, v, r, low = (x @ w.T for w in weights)
    alpha = torch.sigmoid(low @ mixer.decay_proj.weight.T + mixer.decay_proj.bias) ** (1 / 16)
    expected = torch.zeros(7, 8, dtype=torch.float64)
    for head in range(2):
        keys, values = slice(2 * head, 2 * head + 2), slice(4 * head, 4 * head + 4)
        S = torch.zeros(2, 4, dtype=torch.float64)
        for t in range(7):
            S = alpha[t, keys].diag() @ S + torch.outer(k[t, keys], v[t, values])
            o = S.T @ (q[t, keys] / 2**0.5)
            expected[t, values] = mixer.norm.weight * o / torch.sqrt((o**2).mean() + 1e-5)
    expected = (expected * F.silu(r)) @ mixer.out_proj.weight.T
    torch.testing.assert_close(mixer(x[None])[0][0], expected, atol=1e-12, rtol=1e-10)


def test_without_decay_it_is_linear_attention() -> None:
    mixer = prepared(GatedLinearAttention(8, heads=1, gate_rank=3))
    with torch.no_grad():
        mixer.decay_proj.weight.zero_()
        mixer.decay_proj.bias.fill_(1e4)
    x = tokens(mixer, 1, 9)[0]
    q, k, v, r, _ = mixer.in_proj(x).split([4, 4, 8, 8, 3], -1)
    o = ((q @ k.T / 2).tril()) @ v
    o = mixer.norm.weight * o / torch.sqrt((o**2).mean(-1, keepdim=True) + 1e-5)
    torch.testing.assert_close(mixer(x[None])[0][0], mixer.out_proj(o * F.silu(r)), atol=1e-12, rtol=1e-10)


def test_tied_keys_write_what_fading_makes_room_for() -> None:
    """HGRN2: k = 1 - alpha."""
    mixer = prepared(GatedLinearAttention(8, heads=1, gate_rank=3, temperature=1.0, tied_keys=True))
    x = tokens(mixer, 1, 7)[0]
    q, v, r, low = mixer.in_proj(x).split([4, 8, 8, 3], -1)
    alpha = torch.sigmoid(mixer.decay_proj(low))
    S, o = torch.zeros(4, 8, dtype=torch.float64), []
    for t in range(7):
        S = alpha[t, :, None] * S + torch.outer(1 - alpha[t], v[t])
        o.append(S.T @ q[t] / 2)
    o = torch.stack(o)
    o = mixer.norm.weight * o / torch.sqrt((o**2).mean(-1, keepdim=True) + 1e-5)
    torch.testing.assert_close(mixer(x[None])[0][0], mixer.out_proj(o * F.silu(r)), atol=1e-12, rtol=1e-10)
    check_forward(mixer, 9, splits=(4,))


def test_odd_head_counts_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="heads must divide half of d_model; got 3 for 4"):
        GatedLinearAttention(8, heads=3)
