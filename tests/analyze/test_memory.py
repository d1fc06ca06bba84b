"""Effective memory of modules whose memory is known."""

import pytest
import torch
from torch import Tensor, nn

from hippodrome.analyze.memory import effective_memory


class _Decay(nn.Module):
    """y_t = sum_k a^k x_{t-k}: influence a^k at lag k."""

    causal, d_model = True, 3

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple]:
        t = x.shape[1]
        lag = torch.arange(t)[:, None] - torch.arange(t)
        kernel = torch.where(lag >= 0, self.a ** lag.clamp_min(0), 0.0)
        return torch.einsum("ts,bsd->btd", kernel, x), ()


def test_influence_of_a_decay_is_its_powers() -> None:
    found = effective_memory(_Decay(0.5), 16, share=0.9)
    assert torch.allclose(
        torch.tensor(found.influence, dtype=torch.float64), 0.5 ** torch.arange(16).double()
    )
    # 1 - 0.5^k >= 0.9 from k = 4 on.
    assert found.reach == 4


def test_a_longer_decay_reaches_further() -> None:
    assert effective_memory(_Decay(0.9), 128).reach > effective_memory(_Decay(0.5), 128).reach


def test_what_sees_both_sides_is_refused_with_a_sentence() -> None:
    module = _Decay(0.5)
    module.causal = False
    with pytest.raises(ValueError, match="causal"):
        effective_memory(module)
    with pytest.raises(ValueError, match="at least 2"):
        effective_memory(_Decay(0.5), 1)
