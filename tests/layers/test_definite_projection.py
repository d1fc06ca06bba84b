"""The definite map: eigenvalues of C^T B of the sign asked for, and independent rows."""

import pytest
import torch

from hippodrome.analyze.token_dynamics import verdict
from hippodrome.layers.definite_projection import DefiniteProjection
from hippodrome.mixers.mamba import Mamba


@pytest.mark.parametrize(
    ("sign", "below", "fate"),
    [("positive", 0, "divergent"), ("negative", 5, "convergent"), ("mixed", 3, "divergent")],
)
def test_the_product_has_as_many_eigenvalues_of_each_sign_as_states(sign: str, below: int, fate: str) -> None:
    torch.manual_seed(0)
    layer = DefiniteProjection(9, 2, 5, sign).double()
    for scale in (1.0, 3.0):
        layer.weight.data = scale * torch.randn_like(layer.weight)
        S_B, S_C = layer.maps()
        assert torch.linalg.matrix_rank(S_C) == 5
        values = torch.linalg.eigvalsh(S_C.T @ S_B)
        size = 1e-9 * float(values.abs().max())
        assert int((values < -size).sum()) == below
        assert int((values > size).sum()) == 5 - below
        assert verdict(S_B, S_C).fate == fate
    x = torch.randn(3, 9, dtype=torch.float64)
    low, B, C = layer(x).split([2, 5, 5], -1)
    torch.testing.assert_close(low, x @ layer.weight[:2].T)
    torch.testing.assert_close(B, x @ S_B.T)
    torch.testing.assert_close(C, x @ S_C.T)


def test_only_the_first_column_of_the_raw_readout_is_used() -> None:
    layer = DefiniteProjection(9, 2, 5, "positive")
    layer(torch.randn(4, 9)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[7:, 0].all()
    assert not layer.weight.grad[7:, 1:].any()


def test_a_mamba_held_to_a_sign_keeps_to_it() -> None:
    torch.manual_seed(1)
    mixer = Mamba(8, d_state=4, dynamics="negative")
    assert verdict(*mixer.x_proj.maps()).fate == "convergent"
    assert mixer(torch.randn(2, 5, 8))[0].shape == (2, 5, 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dynamics": "upwards"}, "one of positive"),
        ({"dynamics": "positive", "groups": 2}, "in one group"),
        ({"dynamics": "positive", "d_state": 64}, "as many channels as states"),
    ],
)
def test_what_cannot_be_held_is_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Mamba(8, **options)
