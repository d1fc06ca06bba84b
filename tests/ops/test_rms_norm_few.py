"""The short way of the norm: the definition's values for few rows, and no call that it should not take."""

import pytest
import torch

from hippodrome.ops.rms_norm import few, rms_norm
from hippodrome.testing._op_case import recording, slice_of_wider, transposed
from hippodrome.testing.ops import DOUBLE, HALF, SINGLE, close


def inputs(dtype, shape=(3, 36)):
    torch.manual_seed(1)
    wide = torch.promote_types(dtype, torch.float32)
    return (
        torch.randn(shape, dtype=dtype),
        1 + torch.rand(shape[-1], dtype=wide),
        torch.randn(shape, dtype=dtype),
    )


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("shape", [(36,), (1, 48), (3, 36), (2, 2, 21)])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, DOUBLE), (torch.float32, SINGLE), (torch.bfloat16, HALF)]
)
def test_values(dtype, tolerance, shape, gated, groups):
    x, weight, z = inputs(dtype, shape)
    z = z if gated else None
    with recording() as calls, torch.no_grad():
        y = rms_norm(x, weight, z, groups=groups)
    assert list(calls) == ["hippodrome.rms_norm.few"]
    assert y.dtype == dtype
    close(y, rms_norm(x, weight, z, groups=groups, backend="reference"), tolerance, "few")
    for operator, arguments, keywords in calls.values():
        torch.library.opcheck(operator, arguments, keywords)


@pytest.mark.parametrize("lay", [slice_of_wider, transposed])
def test_tensors_of_any_strides(lay):
    x, weight, z = inputs(torch.float64)
    expected = rms_norm(x, weight, z, backend="reference")
    close(rms_norm(lay(x), lay(weight), lay(z)), expected, DOUBLE, "few")


def test_what_goes_the_long_way():
    x, weight, z = inputs(torch.float32)
    assert few.fits(x, weight, z, 1)
    assert not few.fits(x.requires_grad_(), weight, z, 1)
    assert not few.fits(x.detach().half(), weight, None, 1)
    assert not few.fits(x.detach(), weight[1:], None, 1)
    assert not few.fits(x.detach(), weight, z, 5)
    assert not few.fits(x.detach(), weight, z.double(), 1)
    assert not few.fits(torch.randn(2000, 36), weight, None, 1)
    assert not few.fits(x.detach().to("meta"), weight.to("meta"), None, 1)


def test_nan_shows():
    for i in range(3):
        arguments = inputs(torch.float32)
        arguments[i].view(-1)[0] = torch.nan
        assert rms_norm(*arguments).isnan().any()
