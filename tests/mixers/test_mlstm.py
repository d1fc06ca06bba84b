"""mLSTM against its unstabilized recurrence, and under gates that overflow without a stabilizer."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.mixers.base import run_steps
from hippodrome.mixers.mlstm import MLSTM
from hippodrome.testing.mixers import check_mixer, prepared, tokens


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_against_the_recurrence_without_a_stabilizer(forget: str) -> None:
    mixer = prepared(MLSTM(8, heads=2, expand=1, forget=forget))
    x = tokens(mixer, 1, 9)[0]
    inner, z = mixer.in_proj(x).chunk(2, -1)
    padded = F.pad(inner, (0, 0, 3, 0))
    taps = mixer.conv.weight[:, 0]
    c = F.silu(torch.stack([(padded[t : t + 4] * taps.T).sum(0) for t in range(9)]) + mixer.conv.bias)
    dense = [torch.block_diag(*w) for w in mixer.qkv]
    q, k, v = c @ dense[0].T, c @ dense[1].T, inner @ dense[2].T
    raw = mixer.gates(torch.cat([q, k, v], -1))
    i = raw[:, :2].exp()
    f = raw[:, 2:].sigmoid() if forget == "sigmoid" else raw[:, 2:].exp()
    h = torch.zeros(9, 8, dtype=torch.float64)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        C, n = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        for t in range(9):
            key = k[t, part] / 2
            C = f[t, head] * C + i[t, head] * torch.outer(v[t, part], key)
            n = f[t, head] * n + i[t, head] * key
            read = C @ q[t, part] / torch.clamp((n @ q[t, part]).abs(), min=1.0)
            spread = read.var(correction=0)
            h[t, part] = mixer.norm_weight[part] * (read - read.mean()) / torch.sqrt(spread + 1e-5)
    expected = mixer.out_proj((h + mixer.skip * c) * F.silu(z))
    torch.testing.assert_close(mixer(x[None])[0][0], expected, atol=1e-10, rtol=1e-8)


def test_exponential_forgetting_keeps_the_contract() -> None:
    torch.manual_seed(0)
    check_mixer(MLSTM(8, heads=2, expand=1, forget="exp"), batch=2, length=6)


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
@pytest.mark.parametrize("bias", [(1e4, 1e4), (1e4, -1e4), (-1e4, 1e4), (-1e4, -1e4), (300.0, -3.0)])
def test_gates_of_any_size_stay_finite_and_equal_in_both_forms(
    forget: str, bias: tuple[float, float]
) -> None:
    mixer = prepared(MLSTM(8, heads=2, expand=1, forget=forget), torch.float32)
    with torch.no_grad():
        mixer.gates.bias.copy_(torch.tensor(bias).repeat_interleave(2))
        mixer.gates.weight.mul_(100)
    x = tokens(mixer, 2, 40, torch.float32).requires_grad_()
    resets = torch.zeros(2, 40, dtype=torch.bool)
    resets[0, [7, 20]] = True
    y, state = mixer(x, resets=resets)
    (y.sum() + state.S.sum()).backward()
    grads = [x.grad, *(p.grad for p in mixer.parameters())]
    assert all(bool(g.isfinite().all()) for g in grads)
    assert y.isfinite().all()
    assert all(bool(s.isfinite().all()) for s in state)
    with torch.no_grad():
        again, after = run_steps(mixer, x, resets=resets)
    torch.testing.assert_close(y, again, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(state.m, after.m, atol=1e-2, rtol=1e-5)


def test_the_unit_of_the_state_is_free() -> None:
    """The memory is S exp(m): another m with S and n to match says the same."""
    mixer = prepared(MLSTM(8, heads=2, expand=1))
    with torch.no_grad():
        x = tokens(mixer, 2, 12)
        _, state = mixer(x[:, :5])
        other = state._replace(
            S=state.S * torch.exp(torch.tensor(3.0)), n=state.n * torch.exp(torch.tensor(3.0)), m=state.m - 3
        )
        torch.testing.assert_close(mixer(x[:, 5:], other)[0], mixer(x[:, 5:], state)[0], atol=1e-7, rtol=1e-6)


def test_what_cannot_be_meant_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"heads must divide expand \* d_model; got 3 for 16"):
        MLSTM(8, heads=3)
    with pytest.raises(ValueError, match=r"block must divide expand \* d_model; got 5 for 16"):
        MLSTM(8, block=5)
    with pytest.raises(ValueError, match=r"mLSTM has no forget gate 'tanh'; expected one of sigmoid, exp\."):
        MLSTM(8, forget="tanh")
