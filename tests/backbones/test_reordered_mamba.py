"""Mamba in the order of importance: a relaxed sort that becomes one, piece by piece, and its way back."""

import pytest
import torch

from hippodrome.backbones.reordered_mamba import ReorderedMamba
from hippodrome.testing.mixers import check_noncausal, prepared


def scores(mixer: ReorderedMamba, inner: torch.Tensor) -> torch.Tensor:
    low = mixer.mamba.select(inner)[0]
    return mixer.score(mixer.mamba.dt_proj(low) + mixer.mamba.dt_proj.bias).squeeze(-1)


@torch.no_grad()
def test_the_relaxed_sort_becomes_the_permutation_that_sorts() -> None:
    mixer = prepared(ReorderedMamba(8, d_state=4, temperature=1e-4))
    inner = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    P = mixer.permutation(inner, None)
    torch.testing.assert_close(P, torch.eye(6, dtype=P.dtype)[scores(mixer, inner).argsort(1)])
    soft = prepared(ReorderedMamba(8, d_state=4)).permutation(inner, None)
    torch.testing.assert_close(soft.sum(-1), torch.ones(2, 6, dtype=P.dtype))
    assert (soft > 0).all()
    resets = torch.zeros(2, 6, dtype=torch.bool)
    resets[1, 2] = True
    P = mixer.permutation(inner, resets)
    assert not P[1, :2, 2:].any()
    assert not P[1, 2:, :2].any()
    order = scores(mixer, inner)[1]
    torch.testing.assert_close(P[1, 2:, 2:], torch.eye(4, dtype=P.dtype)[order[2:].argsort()])


@torch.no_grad()
def test_sorted_hard_it_is_mamba_on_sorted_tokens() -> None:
    for restore in (False, True):
        mixer = prepared(ReorderedMamba(8, d_state=4, temperature=1e-5, restore=restore))
        x = torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        inner, z = mixer.mamba.in_proj(x).chunk(2, -1)
        inner, _ = mixer.mamba.conv1d(inner, None, None)
        order = scores(mixer, inner)[0].argsort()
        y = mixer.mamba.out_proj(mixer.mamba.selective(inner[:, order], z[:, order])[0])
        expected = torch.empty_like(y).index_copy(1, order, y) if restore else y
        torch.testing.assert_close(mixer(x)[0], expected)


@pytest.mark.parametrize("restore", [False, True])
def test_what_is_left_of_the_contract(restore: bool) -> None:
    check_noncausal(ReorderedMamba(8, d_state=4, restore=restore), 9)


def test_a_temperature_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        ReorderedMamba(8, temperature=0.0)
