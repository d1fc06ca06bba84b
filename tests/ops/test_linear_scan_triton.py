"""The linear scan in Triton: the contract where kernels run, segments, compiling."""

from functools import partial

import pytest
import torch

from hippodrome.ops.linear_scan import linear_scan, triton_
from hippodrome.ops.linear_scan.examples import inputs
from hippodrome.testing import triton_ as testing
from hippodrome.testing.ops import check_registration, check_resets

runs = pytest.mark.skipif(
    testing.device() is None, reason="Triton has neither a GPU here nor its interpreter turned on"
)
FORMS = pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
MORE = (check_registration, check_resets)


@pytest.mark.triton
@runs
@FORMS
def test_contract(constant):
    along_time = ("x",) if constant else ("a", "x")
    examples = partial(inputs, constant=constant)
    more = () if constant else MORE
    testing.check_triton(linear_scan, examples, along_time=along_time, lengths=(1, 70), more=more)


@pytest.mark.triton
@runs
@FORMS
def test_segments_of_time(constant):
    # Few channels and a long row are cut into segments; the interpreter counts the processors of a large GPU.
    assert triton_.plan(torch.empty(1, 300, 3)).segments > 1
    testing.check_values(linear_scan, partial(inputs, b=1, d=3, constant=constant), lengths=(300,))


@pytest.mark.triton
@runs
def test_many_channels_are_not_cut_in_time():
    assert triton_.plan(torch.empty(8, 4096, 1536)).segments == 1


@pytest.mark.triton
@pytest.mark.skipif(
    testing.device() is None or testing.device().type != "cuda", reason="needs a GPU: there is none here"
)
@pytest.mark.parametrize("sizes", [(2, 5000, 1536), (1, 100_000, 64), (64, 33, 2000)], ids=str)
def test_large_shapes_on_a_gpu(sizes):
    arguments = inputs(*sizes, dtype=torch.float32)
    testing.check_long(linear_scan, [x if x is None else x.cuda() for x in arguments])


@pytest.mark.cubin
@pytest.mark.skipif(not testing.can_compile(), reason="Triton is not installed, or set to interpret kernels")
@pytest.mark.parametrize(
    ("constant", "sizes", "dtype", "capabilities"),
    [
        (False, (2, 64, 4096), torch.float32, (80, 90, 100)),
        (True, (1, 2048, 64), torch.bfloat16, (90,)),
        (False, (1, 512, 5), torch.float64, (80,)),
    ],
    ids=["varying", "constant-bfloat16-segments", "float64-segments"],
)
def test_compiles_for_every_architecture(constant, sizes, dtype, capabilities):
    def call():
        a, x, state, resets = inputs(*sizes, constant=constant, dtype=torch.float32)
        a, x = a.to(dtype).requires_grad_(), x.to(dtype).requires_grad_()
        y, last = triton_.linear_scan(a, x, state, resets)
        (y.sum() + last.sum()).backward()

    built = testing.check_compiles(call, capabilities)
    wanted = {"forward", "backward"} if sizes[0] == 2 else {"aggregate", "forward", "backward"}
    assert {cubin.kernel for cubin in built} == wanted
    if dtype == torch.float32:
        assert all(cubin.spilled == 0 for cubin in built)
