"""Norms against their formulas, and their precision."""

import pytest
import torch
import torch.nn.functional as F

from hippodrome.layers.norm import GatedRMSNorm, RMSNorm, build_norm


def test_rms_norm_is_its_formula() -> None:
    norm = RMSNorm(6, eps=1e-3).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    expected = norm.weight * x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-3)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_gated_norm_works_group_by_group(groups: int) -> None:
    norm = GatedRMSNorm(6, groups).double()
    torch.nn.init.normal_(norm.weight)
    y, z = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    gated = y * F.silu(z)
    parts = [p / torch.sqrt((p**2).mean(-1, keepdim=True) + 1e-5) for p in gated.chunk(groups, -1)]
    torch.testing.assert_close(norm(y, z), norm.weight * torch.cat(parts, -1))


@pytest.mark.parametrize("groups", [1, 3])
def test_norm_before_the_gate_and_norm_without_weights(groups: int) -> None:
    y, z = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    plain = torch.cat([p / torch.sqrt((p**2).mean(-1, keepdim=True) + 1e-5) for p in y.chunk(groups, -1)], -1)
    norm = GatedRMSNorm(6, groups, before_gate=True).double()
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(y, z), norm.weight * plain * F.silu(z))
    bare = RMSNorm(6, groups=groups, weighted=False).double()
    torch.testing.assert_close(bare(y), plain)
    assert not list(bare.parameters())
    assert not bare.state_dict()


def test_statistics_are_float32_under_autocast_and_in_half() -> None:
    # Squares of 3e4 leave float16; their mean must not.
    x = torch.full((1, 8), 3e4)
    with torch.autocast("cpu", torch.float16):
        assert torch.allclose(RMSNorm(8)(x), torch.ones(1, 8), atol=1e-3)
        assert RMSNorm(8)(x).dtype == torch.float32
    half = RMSNorm(8).half()(x.half())
    assert half.dtype == torch.float16
    assert torch.allclose(half.float(), torch.ones(1, 8), atol=1e-3)
    gated = GatedRMSNorm(8).half()(x.half(), torch.ones(1, 8).half())
    assert torch.allclose(gated.float(), torch.ones(1, 8), atol=1e-3)


def test_what_cannot_be_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="must divide its channels; got 4 groups for 6 channels"):
        GatedRMSNorm(6, 4)
    with pytest.raises(ValueError, match="must divide its channels; got 4 groups for 6 channels"):
        RMSNorm(6, groups=4)
    with pytest.raises(ValueError, match="'rms', 'rms1', 'layer' or 'none'"):
        build_norm("batch", 4)


def test_scales_may_be_one_and_a_parameter_that_starts_at_zero() -> None:
    norm = build_norm("rms1", 6, eps=1e-3).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    plain = x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-3)
    torch.testing.assert_close(norm(x), plain)
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(norm(x), (1 + norm.weight) * plain)


def test_the_sum_with_one_is_not_rounded_to_the_weights_dtype() -> None:
    norm = build_norm("rms1", 64).bfloat16()
    torch.nn.init.constant_(norm.weight, 2.0**-9)  # 1 + 2^-9 is 1 in bfloat16
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    wide = x.float() / torch.sqrt((x.float() ** 2).mean(-1, keepdim=True) + 1e-5)
    with torch.no_grad():
        same = norm(x) == ((1 + 2.0**-9) * wide).bfloat16()
    assert float(same.float().mean()) > 0.99
    assert float((wide.bfloat16() == ((1 + 2.0**-9) * wide).bfloat16()).float().mean()) < 0.9
