"""Gated DeltaNet against its matrices written out, and DeltaNet as the form without a gate."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.base import run_steps
from hippodrome.mixers.gated_delta_net import GatedDeltaNet
from hippodrome.testing.mixers import check_mixer, prepared, tokens


@pytest.mark.parametrize("gated", [True, False])
def test_against_explicit_matrices(gated: bool) -> None:
    mixer = prepared(GatedDeltaNet(8, heads=2, head_dim=3, expand=2, gated=gated))
    x = tokens(mixer, 1, 7)[0]
    mixed, z, beta, raw = (x @ mixer.in_proj.weight.T).split([24, 12, 2, 2 if gated else 0], -1)
    padded = F.pad(mixed, (0, 0, 3, 0))
    taps = mixer.conv.weight[:, 0]
    mixed = torch.stack([(padded[t : t + 4] * taps.T).sum(0) for t in range(7)]) + mixer.conv.bias
    q, k, v = F.silu(mixed).split([6, 6, 12], -1)
    expected = torch.zeros(7, 12, dtype=torch.float64)
    for head in range(2):
        keys, values = slice(3 * head, 3 * head + 3), slice(6 * head, 6 * head + 6)
        S = torch.zeros(3, 6, dtype=torch.float64)
        for t in range(7):
            key = k[t, keys] / torch.sqrt(k[t, keys] @ k[t, keys] + 1e-6)
            query = q[t, keys] / torch.sqrt(q[t, keys] @ q[t, keys] + 1e-6)
            alpha = 1.0
            if gated:
                step = F.softplus(raw[t, head] + mixer.dt_bias[head])
                alpha = torch.exp(-torch.exp(mixer.A_log[head]) * step)
            b = torch.sigmoid(beta[t, head])
            turn = torch.eye(3, dtype=torch.float64) - b * torch.outer(key, key)
            S = alpha * turn @ S + b * torch.outer(key, v[t, values])
            o = S.T @ query / 3**0.5
            expected[t, values] = mixer.norm.weight * o / torch.sqrt((o**2).mean() + 1e-5)
    expected = (expected * F.silu(z)) @ mixer.out_proj.weight.T
    for run in (mixer, lambda x: run_steps(mixer, x)):
        torch.testing.assert_close(run(x[None])[0][0], expected, atol=1e-12, rtol=1e-10)


def test_without_a_gate_it_keeps_the_contract() -> None:
    check_mixer(GatedDeltaNet(8, heads=2, head_dim=3, gated=False))


def test_only_time_scales_are_set_apart() -> None:
    (group,) = GatedDeltaNet(8).parameter_groups()
    assert len(group.parameters) == 2
    assert not group.decay
    assert GatedDeltaNet(8, gated=False).parameter_groups() == []


def test_heads_that_do_not_divide_are_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="heads must divide d_model; got 3 for 8"):
        GatedDeltaNet(8, heads=3)
