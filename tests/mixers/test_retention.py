"""Retention against its parallel form in complex numbers, and its fading against a closed form."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.retention import Retention
from hippodrome.testing.mixers import check_mixer, prepared, tokens


def test_against_the_parallel_form_in_complex_numbers() -> None:
    """Equation 5: D_nm = gamma^(n-m), queries and keys times exp(i n theta)."""
    mixer = prepared(Retention(8, heads=2, expand=1))
    x = tokens(mixer, 1, 11)[0]
    q, k, v, gate = mixer.in_proj(x).split([8, 8, 8, 8], -1)
    n = torch.arange(11, dtype=torch.float64)
    theta = torch.tensor([1.0, 10000**-0.5], dtype=torch.float64)
    turn = torch.polar(torch.ones(11, 2, dtype=torch.float64), n[:, None] * theta)
    expected = torch.zeros(11, 8, dtype=torch.float64)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        qc, kc = (torch.complex(m[:, part][:, :2], m[:, part][:, 2:]) * turn for m in (q, k))
        scores = (qc @ kc.mH).real / 2
        gamma = 1 - 2.0 ** (-5 - head)
        o = (scores * torch.tril(gamma ** (n[:, None] - n))) @ v[:, part]
        mean, spread = o.mean(-1, keepdim=True), o.var(-1, correction=0, keepdim=True)
        normed = (o - mean) / torch.sqrt(spread + 1e-5)
        expected[:, part] = normed * mixer.norm.weight[part] + mixer.norm.bias[part]
    expected = mixer.out_proj(F.silu(gate) * expected)
    torch.testing.assert_close(mixer(x[None])[0][0], expected, atol=1e-11, rtol=1e-9)


def test_a_state_fades_by_its_heads_rate() -> None:
    mixer = prepared(Retention(8, heads=4))
    state = mixer.init_state(1)._replace(S=torch.ones(1, 4, 4, 2, dtype=torch.float64))
    with torch.no_grad():
        _, after = mixer(torch.zeros(1, 20, 8, dtype=torch.float64), state)
    rates = torch.tensor([31 / 32, 63 / 64, 127 / 128, 255 / 256], dtype=torch.float64)
    torch.testing.assert_close(after.S[0, :, 0, 0], rates**20, atol=0, rtol=1e-12)
    assert int(after.seen) == 20


def test_without_positions_it_keeps_the_contract() -> None:
    check_mixer(Retention(6, heads=2, expand=1, rope=False), batch=2, length=6)


def test_odd_sizes_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="heads must divide d_model; got 3 for 8"):
        Retention(8, heads=3)
    with pytest.raises(ValueError, match=r"must be even; got 6 channels in 2 heads, 3 each.*rope=False"):
        Retention(6, heads=2)
