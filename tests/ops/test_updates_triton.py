"""One-token updates in Triton: the definition where kernels run, compiling for every architecture."""

from functools import partial

import pytest
import torch

from hippodrome.ops import causal_conv_update as conv
from hippodrome.ops import delta_rule_update as delta
from hippodrome.ops import gla_update as gla
from hippodrome.ops import selective_scan_update as scan
from hippodrome.ops import ssd_update as ssd
from hippodrome.ops.causal_conv_update.examples import inputs as conv_inputs
from hippodrome.ops.delta_rule_update.examples import inputs as delta_inputs
from hippodrome.ops.gla_update.examples import inputs as gla_inputs
from hippodrome.ops.selective_scan_update.examples import inputs as scan_inputs
from hippodrome.ops.ssd_update.examples import inputs as ssd_inputs
from hippodrome.testing import triton_ as testing
from hippodrome.testing._op_case import slice_of_wider, transposed
from hippodrome.testing.ops import HALF, SINGLE, close

runs = pytest.mark.skipif(
    testing.device() is None, reason="Triton has neither a GPU here nor its interpreter turned on"
)
CASES = {
    "conv": (conv.causal_conv_update, conv_inputs, {"activation": "silu"}),
    "conv-bare": (conv.causal_conv_update, partial(conv_inputs, 1, 300, 2, bias=False), {}),
    "conv-one-tap": (conv.causal_conv_update, partial(conv_inputs, 2, 5, 1), {}),
    "scan": (scan.selective_scan_update, scan_inputs, {"softplus": True}),
    "scan-grouped": (scan.selective_scan_update, partial(scan_inputs, 2, 70, 17, 2), {"softplus": True}),
    "scan-bare": (
        scan.selective_scan_update,
        partial(scan_inputs, 1, 5, 3, softplus=False, rest=False),
        {"softplus": False},
    ),
    "ssd": (ssd.ssd_update, ssd_inputs, {}),
    "ssd-bounded": (
        ssd.ssd_update,
        partial(ssd_inputs, 2, 4, 40, 24, 2),
        {"softplus": True, "low": 0.5, "high": 0.7},
    ),
    "ssd-bare": (ssd.ssd_update, partial(ssd_inputs, 1, 2, 5, 7, 1, rest=False), {}),
    "gla": (gla.gla_update, partial(gla_inputs, 2, 2, 12, 40), {}),
    "delta": (delta.delta_rule_update, partial(delta_inputs, 2, 2, 12, 40), {}),
    "delta-bare": (delta.delta_rule_update, partial(delta_inputs, 1, 2, 5, 7, with_gate=False), {}),
}
all_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.mark.triton
@runs
@all_cases
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, SINGLE), (torch.bfloat16, HALF), (torch.float16, HALF)]
)
def test_values(case, dtype, tolerance):
    update, examples, options = case
    where = testing.device()
    expected, actual = (
        examples(dtype=dtype),
        tuple(None if x is None else x.to(where) for x in examples(dtype=dtype)),
    )
    y = update(*actual, **options, backend="triton")
    assert y.dtype == dtype
    close(y.cpu(), update(*expected, **options, backend="reference"), tolerance, "output")
    close(actual[-1].cpu(), expected[-1], tolerance, "state")


@pytest.mark.triton
@runs
@all_cases
@pytest.mark.parametrize("lay", [slice_of_wider, transposed])
def test_tensors_of_any_strides(case, lay):
    update, examples, options = case
    where = testing.device()
    plain, strided = (
        [None if x is None else x.to(where) for x in examples(dtype=torch.float32)] for _ in range(2)
    )
    strided = [lay(x) for x in strided]
    expected = update(*plain, **options, backend="triton")
    close(update(*strided, **options, backend="triton"), expected, SINGLE, "output")
    close(strided[-1], plain[-1], SINGLE, "state")


@pytest.mark.triton
@runs
@pytest.mark.parametrize(
    "module", [conv, scan, ssd, gla, delta], ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_the_self_check_passes(module):
    module.triton_._check(testing.device())


@pytest.mark.cubin
@pytest.mark.skipif(not testing.can_compile(), reason="Triton is not installed, or set to interpret kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_for_every_architecture(dtype):
    def call():
        conv.triton_.causal_conv_update(*conv_inputs(1, 1536, 4, dtype=dtype), True)
        scan.triton_.selective_scan_update(*scan_inputs(1, 1536, 16, dtype=dtype), True)
        ssd.triton_.ssd_update(*ssd_inputs(1, 24, 64, 128, 1, dtype=dtype), True, 0.0, torch.inf)
        gla.triton_.gla_update(*gla_inputs(1, 4, 128, 256, dtype=dtype))
        delta.triton_.delta_rule_update(*delta_inputs(1, 12, 128, 128, dtype=dtype))

    built = testing.check_compiles(call)
    assert len(built) == 15
    assert all(cubin.spilled == 0 for cubin in built)
